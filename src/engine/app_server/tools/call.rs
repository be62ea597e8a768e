//! A call of a client's tool.

/// A call of a client's tool, as the model wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The client's id of the call, which no other call of the turn has.
    pub(crate) id: String,
    /// Codex's id of the call: the model may repeat one, or leave it out.
    pub(crate) codex_id: String,
    /// The name that the model sees.
    pub(crate) alias: String,
    pub(crate) arguments: String,
}

/// A call, and the mistake in its arguments, if any.
pub(crate) type CheckedCall = (Call, Result<(), String>);
