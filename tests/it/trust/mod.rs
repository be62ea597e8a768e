//! Access control, secrets, sandboxes and environments.

mod access;
mod environment;
mod reasons;
mod sandbox;
mod secrets;
mod sub_agents;
mod writable_folders;
