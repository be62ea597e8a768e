//! The installed Codex CLI: location, version and features, environment, user configuration, provider, transport, error messages.

pub(crate) mod environment;
pub(crate) mod error_messages;
pub(crate) mod locate;
pub(crate) mod models;
pub(crate) mod probe;
pub(crate) mod provider;
pub(crate) mod transport;
pub(crate) mod user_config;
