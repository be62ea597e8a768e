//! The doors of a whole server: protocols, health, drain, cancelled calls.

mod base_urls;
mod drain;
mod health;
mod protocols;
mod storm;
