//! Conversations whose turns continue one another: a request that extends a conversation goes on in its thread, and nobody can
//! tell the difference from a fresh thread but by the time.

mod bounds;
mod client;
mod commands;
mod fidelity;
mod isolation;
mod lost;
mod parked;
mod player;
mod steps;
mod upstream;
