//! A call of a client's tool.

/// A call of a client's tool, as the model wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The client's id of the call, which is unique in the turn.
    pub(crate) id: String,
    /// Codex's id of the call. The model may repeat or omit this id.
    pub(crate) codex_id: String,
    /// The name that the model sees.
    pub(crate) alias: String,
    pub(crate) arguments: String,
}

/// A call with the verdict on its arguments.
pub(crate) type CheckedCall = (Call, Result<(), InvalidArguments>);

/// A mistake of the model in the arguments of a call. The text names the tool and the mistake, so that the model can
/// correct the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidArguments(pub(crate) String);
