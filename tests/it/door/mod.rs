//! The doors of a whole server: protocols, health, drain, cancelled calls.

mod base_urls;
mod drain;
mod health;
mod mesh;
mod protocols;
mod slow_bodies;
mod storm;
