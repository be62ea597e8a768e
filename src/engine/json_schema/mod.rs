//! The validation of JSON against schemas of clients, within limits.

pub(crate) mod argument_validator;
mod metered_value;
mod schema_size;
