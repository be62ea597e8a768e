//! The reasons why a worker could not be started.

use std::{io, path::PathBuf};

use crate::engine::{
    app_server::{
        capabilities::CapabilityError, launch::model_catalog::CatalogError, rpc::dispatch::CallError,
    },
    cli::{login::LoginError, probe::ProbeError, scrub},
};

/// The reason why a worker could not be started. Each message is for callers: without paths and without output of the CLI.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The installed CLI cannot be run.
    #[error(transparent)]
    Cli(#[from] ProbeError),
    /// The CLI has no login that it can use.
    #[error("{}", .0.with_remedy())]
    Login(LoginError),
    /// The model catalogs cannot be written.
    #[error("{}", .0.public())]
    Catalog(#[from] CatalogError),
    /// A directory for the worker cannot be created.
    #[error("cannot create {purpose}; `codex-api doctor` and the log have the cause")]
    Directory {
        /// The purpose of the directory.
        purpose: &'static str,
        /// The parent directory.
        parent: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The process cannot be spawned.
    #[error("the app-server cannot be started; `codex-api doctor` and the log have the cause")]
    Spawn(#[from] io::Error),
    /// The process was spawned without a pipe.
    #[error("the app-server has no pipe")]
    NoPipe,
    /// The process exited before the handshake completed.
    #[error("the app-server exited at its start; `codex-api doctor` and the log have its output")]
    Exited {
        /// A summary of the standard error of the process.
        stderr: String,
    },
    /// The handshake failed.
    #[error("the handshake with the app-server failed; `codex-api doctor` and the log have the cause")]
    Handshake(#[from] CallError),
    /// The app-server lacks required capabilities, or cannot be probed.
    #[error("{}", .0.public())]
    Capabilities(#[from] CapabilityError),
    /// The CLI was replaced between the probe and the start. The process may run either program.
    #[error("the Codex CLI was replaced while it was being started")]
    Replaced,
    /// The task of the start panicked.
    #[error("internal error at the start of the app-server; the log has the cause")]
    Panicked,
}

impl StartError {
    /// Returns the message for the operator. It has no value of the CLI's configuration.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Cli(error) => error.detail(),
            Self::Catalog(error) => scrub::without_values(&error.to_string()),
            Self::Directory { purpose, parent, cause } => {
                format!("cannot create {purpose} in {}: {cause}", parent.display())
            }
            Self::Spawn(cause) => format!("cannot spawn the app-server: {cause}"),
            Self::Exited { stderr } if stderr.is_empty() => {
                "the app-server exited at its start: no output on standard error".to_owned()
            }
            Self::Exited { stderr } => {
                format!("the app-server exited at its start: {}", scrub::without_values(stderr))
            }
            Self::Handshake(error) => {
                let error = scrub::without_values(&error.to_string());
                format!("the handshake with the app-server failed: {error}")
            }
            Self::Capabilities(error) => error.to_string(),
            Self::Login(_) | Self::NoPipe | Self::Replaced | Self::Panicked => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_of_an_exit_has_no_output_and_its_detail_has_no_value() {
        let stderr = "Error: the disk is full: string \"hunter2\" in /home/ann/.codex/config.toml".to_owned();
        let error = StartError::Exited { stderr };
        assert!(!error.to_string().contains("disk"), "{error}");
        let expected =
            "the app-server exited at its start: Error: the disk is full: string \"…\" in config.toml";
        assert_eq!(error.detail(), expected);
        let error = StartError::from(ProbeError::Configuration { output: "secret".into() });
        assert!(!error.to_string().contains("secret") && error.detail().contains("secret"));
    }
}
