//! The launch parameters of an app-server worker: overrides, model catalog, home.

pub(crate) mod cli_config;
pub(crate) mod model_catalog;
pub(crate) mod worker_home;
