//! Serves the statistics to any number of clients, as server-sent events.
//!
//! [`statistics_stream::upstream`] follows stats-notifier, or another gateway, into a
//! [hub](statistics_stream::Hub). A request takes this way: [`routes`] selects its handler;
//! [`query`] and [`media_type`] parse it; [`handlers`] answers from the hub, or from [`history`].
//! `openapi` and `schemas` describe the routes. The hub encodes the frames
//! (`statistics-stream/src/encoder.rs`). [`startup`] builds all of it from [`settings`].
//!
//! Invariant: the service has no database access and no state of its own. Every count that it
//! serves came from an upstream.

pub mod error;
pub mod handlers;
pub mod history;
pub mod media_type;
mod metrics;
mod openapi;
pub mod query;
pub mod routes;
mod schemas;
pub mod settings;
pub mod startup;
