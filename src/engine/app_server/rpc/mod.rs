//! JSON-RPC with an app-server: client, dispatch, pipes, messages.

pub(crate) mod client;
pub(crate) mod delta;
pub(crate) mod dispatch;
mod io;
pub(crate) mod json;
pub(crate) mod large_lines;
pub(crate) mod protocol;
pub(crate) mod thread_queue;
