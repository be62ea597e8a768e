//! What holds for the doors of a whole server, whatever is asked for behind them.

mod drain;
mod health;
mod protocols;
mod storm;
