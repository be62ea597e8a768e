//! The installed Codex CLI: location, version and features, environment, user configuration, login, models, provider,
//! transport, TLS roots, retries, error messages, folders that commands may write to.

pub(crate) mod environment;
pub(crate) mod error_messages;
pub(crate) mod locate;
pub(crate) mod login;
pub(crate) mod models;
pub(crate) mod probe;
pub(crate) mod provider;
pub(crate) mod retries;
pub(crate) mod scrub;
pub(crate) mod thread_transport;
pub(crate) mod tls_roots;
pub(crate) mod transport;
pub(crate) mod user_config;
pub(crate) mod writable_roots;
