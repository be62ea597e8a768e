//! What is too much, too odd or too slow gets a clear answer at both doors, and what is just within the limits works.

mod choices;
mod images;
mod prompts;
mod readers;
