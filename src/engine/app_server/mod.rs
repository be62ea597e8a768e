//! The warm engine over `codex app-server` (being built).
#![expect(dead_code, reason = "being built")]

mod catalog;
mod flags;
mod gate;
mod home;
mod mailbox;
mod peer;
mod wire;
