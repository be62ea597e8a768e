//! The installed Codex CLI: where it is, what it can do, its environment, provider and error texts.

pub(crate) mod environment;
pub(crate) mod error_messages;
pub(crate) mod locate;
pub(crate) mod probe;
pub(crate) mod provider;
