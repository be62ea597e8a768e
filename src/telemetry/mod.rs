//! Sets up the log: one subscriber, as text for people or JSON for collectors.

mod text_fields;

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::config::Log;

/// Starts the log on stderr. Fails if the filter is invalid.
pub fn start(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| format!("CODEX_LOG: {error}"))?;
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if log.json {
        registry.with(layer.json().flatten_event(true)).try_init()
    } else {
        let layer = layer.fmt_fields(text_fields::formatter()).with_ansi(std::io::stderr().is_terminal());
        registry.with(layer).try_init()
    };
    started.map_err(|error| error.to_string())
}
