//! Who may come in, from where, and what nobody gets to see.

mod access;
mod environment;
mod sandbox;
mod secrets;
mod sub_agents;
