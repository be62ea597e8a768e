//! Placeholder until the gate is merged.
use super::peer::Peer;
use crate::{config::Codex, engine::installed::Installed};
#[derive(Debug, Clone, Default)]
pub(super) struct Features {
    pub(super) no_tools: Option<String>,
}
#[allow(clippy::unused_async, reason = "x")]
pub(super) async fn examine(_: &Peer, _: &Codex, _: &Installed) -> Result<Features, String> {
    Ok(Features::default())
}
