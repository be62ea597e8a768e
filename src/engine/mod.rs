//! Executes turns: the [`Engine`] trait, its input ([`Turn`]) and its output ([`TurnEvent`]). Engines import neither
//! the service nor the doors.

mod account;
mod app_server;
mod check;
pub(crate) mod cli;
mod continuation;
mod effects;
mod events;
pub mod exec;
mod image;
pub(crate) mod json_schema;
mod models;
mod notice;
pub mod process;
pub mod selector;
mod thread_counts;
mod tool;
mod turn;

pub use account::{AccountLimits, Credits, LimitWindow};
pub(crate) use account::{LimitsReading, RateLimits};
pub use check::{Check, Severity};
pub(crate) use continuation::update_with;
pub use continuation::{AnswerDigest, Continuation};
pub use effects::Effects;
pub use events::{EventSender, Events, TurnEvent};
pub use image::{Image, ImageKind};
pub use models::{ModelCatalog, profile_of_alias, resolve as resolve_model};
pub use thread_counts::{Eviction, ThreadCounts, ThreadOrigin};
pub use tool::{Parameters, ResponseSchema, Tool};
pub(crate) use turn::REASONING_BREAK;
pub use turn::{ContentGuard, Format, MAX_CALL_ID_BYTES, Message, Part, Role, ToolChoice, Turn, TurnGuard};

use std::{fmt, sync::Arc};

use crate::{config::Profile, error::Error, pb};

/// Executes turns.
#[tonic::async_trait]
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Starts a turn and returns its events. The stream ends with exactly one [`TurnEvent::Finished`] or one error.
    ///
    /// Dropping the stream cancels the turn. The engine drops `guard` after the last process of the turn has
    /// exited and the last file is removed.
    async fn run(&self, turn: Turn, guard: TurnGuard) -> Result<Events, Error>;

    /// Waits for an engine that is about to become ready, for a limited time. Called before each turn, so that the first
    /// turn after the operator's remedy does not fail.
    async fn prepare(&self) {}

    /// Returns the readiness of the engine. A success is cached, a failure is checked again.
    async fn status(&self) -> EngineStatus;

    /// Returns the recommended number of concurrent turns. It may change with the installed CLI.
    fn usual_concurrency(&self) -> usize;

    /// Refuses a turn that this engine does not support. Runs before admission, so an implementation must not block or
    /// compute much.
    fn check(&self, turn: &Turn) -> Result<(), Error>;

    /// Returns the models that the CLI lists, its default first. Empty if the CLI cannot list models.
    async fn models(&self) -> Vec<pb::Model>;

    /// Returns the catalog of the installed CLI. `None` if the CLI prints no catalog. The first call may run the CLI.
    async fn model_catalog(&self) -> Option<Arc<ModelCatalog>>;

    /// Returns the profiles that a request may select.
    fn profiles(&self) -> Vec<Profile>;

    /// Stops all turns and completes when no process is left.
    async fn drain(&self);
}

/// The readiness of an engine, returned by [`Engine::status`].
#[derive(Debug, Clone, PartialEq)]
pub struct EngineStatus {
    /// `exec` or `app-server`; `auto` while no engine is selected.
    pub kind: &'static str,
    /// Version of the CLI. Empty if no CLI could be probed.
    pub version: String,
    /// The reason why no turn can run, with the remedy. `None` if turns can run.
    pub unavailable_reason: Option<String>,
    /// The reason why another engine than the preferred one runs turns. Contains no secret.
    pub degraded_reason: Option<String>,
    /// The limits of the account. `None` before the first reading, and always for exec, whose CLI does not report them.
    pub account: Option<Arc<AccountLimits>>,
    /// The kept threads. `None` for an engine without threads.
    pub threads: Option<ThreadCounts>,
}
