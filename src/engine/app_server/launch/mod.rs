//! How an app-server worker is launched: overrides, model catalog, home.

pub(crate) mod cli_config;
pub(crate) mod model_catalog;
pub(crate) mod worker_home;
