//! What every program that connects to Postgres needs.
//!
//! - [`settings`]: which servers and database, as whom, and how many connections;
//! - [`connect`]: finds the server that accepts writes;
//! - [`database`]: a pool with a time limit on each use;
//! - [`session`]: the statements on one of its connections, prepared or, for poolers, unnamed;
//! - [`mod@error`]: what errors say, and which may pass by themselves;
//! - [`locks`]: the advisory locks;
//! - [`keyring`]: the keys that clients present, kept up to date;
//! - [`schema`]: the schema version that this release needs;
//! - [`tls`]: whether a connection uses TLS, and which server it trusts.
//!
//! It is separate from [`service_kit`] because sse-gateway and dashboard must not link a Postgres
//! client.

pub mod connect;
pub mod database;
pub mod error;
pub mod keyring;
pub mod locks;
pub mod schema;
pub mod session;
pub mod settings;
pub mod tls;
