//! The warm engine: turns as threads of long-lived `codex app-server` processes.
#![cfg_attr(not(test), expect(dead_code, reason = "being built"))]

pub(crate) mod history;
mod memory;
mod schema;
mod tools;
