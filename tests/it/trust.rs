//! Who may come in, from where, and what nobody gets to see.

mod doors;
mod sandbox;
mod secrets;
