//! Access control, secrets, sandboxes and environments.

mod access;
mod environment;
mod sandbox;
mod secrets;
mod sub_agents;
