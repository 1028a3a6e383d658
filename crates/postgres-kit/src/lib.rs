//! What every program that connects to Postgres needs.
//!
//! - [`database`][]: connection settings, and a pool with a deadline on each use;
//! - [`locks`][]: the advisory locks;
//! - [`schema`][]: the schema version that this release needs.
//!
//! A crate of its own, because sse-gateway and dashboard link [`service_kit`] and no Postgres client.

pub mod database;
pub mod locks;
pub mod schema;
pub mod settings;
