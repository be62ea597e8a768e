//! The listener and its layers, in front of a small test service.

mod connections;
mod drain;
mod frames;
mod hazards;
mod layers;

mod toy;
