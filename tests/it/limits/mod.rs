//! Limits of requests and connections: both doors refuse requests beyond a limit with a clear error and accept requests
//! at the limit.

mod account;
mod choices;
mod compressed;
mod hazards;
mod images;
mod memory;
mod prompts;
mod readers;
