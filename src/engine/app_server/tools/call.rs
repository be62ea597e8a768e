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

/// A call, and whether its arguments match the tool's schema.
pub(crate) type CheckedCall = (Call, Result<(), InvalidArguments>);

/// A mistake of the model in the arguments of a call. The text names the tool and the mistake, for the model to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidArguments(pub(crate) String);
