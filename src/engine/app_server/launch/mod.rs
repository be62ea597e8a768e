//! The launch parameters of an app-server worker, which are overrides, model catalogs, seeds and a home.

pub(crate) mod cli_config;
pub(crate) mod model_catalog;
pub(crate) mod seed;
pub(crate) mod worker_home;
