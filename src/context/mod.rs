//! What a request carries from its door to the core.

pub mod deadline;
