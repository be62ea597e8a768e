//! The forms that the bodies of several routes share, and their conversion to the contract's messages.

pub(super) mod content;
mod data_url;
pub(super) mod extra_params;
mod file;
pub(super) mod format;
mod image;
pub(super) mod objects;
pub(super) mod tools;
pub(super) mod types;
