//! The reasons why a worker could not be started.

use std::{io, path::PathBuf};

use crate::engine::{
    app_server::{
        capabilities::CapabilityError, launch::model_catalog::CatalogError, rpc::dispatch::CallError,
    },
    cli::{login::LoginError, probe::ProbeError},
};

/// The reason why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The installed CLI cannot be run.
    #[error(transparent)]
    Cli(#[from] ProbeError),
    /// The CLI has no login that it can use.
    #[error("{}", .0.with_remedy())]
    Login(LoginError),
    /// The model catalogs cannot be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A directory for the worker cannot be created.
    #[error("cannot create {purpose} in {}: {cause}", .parent.display())]
    Directory {
        /// The purpose of the directory.
        purpose: &'static str,
        /// The parent directory.
        parent: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The process cannot be spawned.
    #[error("cannot spawn the app-server: {0}")]
    Spawn(#[from] io::Error),
    /// The process was spawned without a pipe.
    #[error("the app-server has no pipe")]
    NoPipe,
    /// The process exited before the handshake completed.
    #[error("the app-server exited at its start: {}", if .stderr.is_empty() { "no output on standard error" } else { .stderr.as_str() })]
    Exited {
        /// A summary of the standard error of the process.
        stderr: String,
    },
    /// The handshake failed.
    #[error("the handshake with the app-server failed: {0}")]
    Handshake(#[from] CallError),
    /// The app-server lacks required capabilities, or cannot be probed.
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    /// The CLI was replaced between the probe and the start. The process may run either program.
    #[error("the Codex CLI was replaced while it was being started")]
    Replaced,
}
