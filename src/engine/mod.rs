//! How a turn is executed: the trait that the core calls, and what it gives and gets.
//! Engines speak the contract's own events; they know neither the service nor the doors.

mod app_server;
mod check;
pub(crate) mod cli;
pub mod exec;
mod image;
pub mod process;
mod selector;
mod tool;
mod turn;

pub use check::{Check, Outcome};
pub use image::{Image, ImageKind};
pub use selector::{ChoiceError, choose, examine};
pub use tool::{Parameters, ResponseSchema, Tool};
pub(crate) use turn::THOUGHT_BREAK;
pub use turn::{
    Events, Format, LONGEST_CALL_ID, Message, Part, Role, ToolChoice, Turn, TurnEvent, TurnGuard,
};

use std::fmt;

use crate::{config::Profile, error::Error, pb};

/// Executes turns.
#[tonic::async_trait]
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Starts a turn. Dropping the returned events cancels it; `slot` is dropped when the last of its work is gone.
    ///
    /// The stream ends with exactly one [`Event::Finished`](TurnEvent::Finished) or one error.
    async fn run(&self, turn: Turn, slot: TurnGuard) -> Result<Events, Error>;

    /// Whether a turn can run now. Cheap: a good answer is remembered, a bad one is checked again.
    async fn status(&self) -> EngineStatus;

    /// Turns that it runs well at once; may change with the installed CLI.
    fn usual_concurrency(&self) -> usize;

    /// Refuses what this engine cannot do, before the turn is admitted.
    fn check(&self, turn: &Turn) -> Result<(), Error>;

    /// The models that the CLI knows, the usual one first; none where it cannot be asked.
    async fn models(&self) -> Vec<pb::Model>;

    /// Profiles that a request may ask for. Told at once, by what is known of the CLI.
    fn profiles(&self) -> Vec<Profile>;

    /// Ends what is left of all turns, read or not, and waits until nothing of them is alive.
    async fn drain(&self);
}

/// Whether an engine can run a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineStatus {
    /// `exec` or `app-server`; `auto` while nothing can be chosen.
    pub kind: &'static str,
    /// Version of the CLI, empty when it could not be asked.
    pub version: String,
    /// Why no turn can run, and what to do about it.
    pub trouble: Option<String>,
}
