//! Relays the statistics to any number of clients by server-sent events.
//!
//! The data's way: [`statistics_stream::upstream`] follows stats-notifier, or another gateway, into a hub; the
//! [`routes`] parse what a client [asks for](request) and stream it from there; [`openapi`] describes them. [`startup`] puts it together
//! from [`settings`].
//!
//! Invariant: it has no database, and nothing of its own: whatever it shows, some upstream has said.

pub mod error;
pub mod history;
mod metrics;
pub mod openapi;
pub mod request;
pub mod routes;
pub mod settings;
pub mod startup;
