//! The listener and its layers, with a toy behind them.

mod drain;
mod frames;
mod hazards;
mod layers;
mod toy;
