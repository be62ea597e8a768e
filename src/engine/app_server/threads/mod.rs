//! Threads that are kept after their turn, so that the next request of the same conversation goes on there. Correctness
//! never depends on a kept thread: a request whose conversation is not found runs on a fresh one. A fresh thread may have a
//! stable key for the upstream's prompt cache.

pub(crate) mod cache_key;
pub(crate) mod conversation;
pub(crate) mod index;
