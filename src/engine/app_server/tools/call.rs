//! A call of a client's tool, as the model wrote it.

/// A call of a client's tool, as the model wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) id: String,
    /// Its id as Codex knows it.
    pub(crate) told: String,
    pub(crate) alias: String,
    pub(crate) arguments: String,
}

/// A call, and what is wrong with it.
pub(crate) type CheckedCall = (Call, Result<(), String>);
