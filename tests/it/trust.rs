//! Who may come in, from where, and what nobody gets to see.

mod beyond;
mod doors;
mod environment;
mod sandbox;
mod secrets;
