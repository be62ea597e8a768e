//! The integration tests: one binary, one file per behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    unreachable_pub,
    reason = "tests may panic, print, start programs and match only the relevant variants"
)]

mod answers;
mod bodies;
mod cache_keys;
mod cancel;
mod chat;
mod clients;
mod commands;
mod completions;
mod conversations;
mod documents;
mod door;
mod errors;
mod faults;
mod formats;
mod histories;
mod layers;
mod limits;
mod load;
mod models;
mod probes;
mod responses;
mod retries;
mod support;
mod tools;
mod transport;
mod trust;
mod upstream;
mod workers;
