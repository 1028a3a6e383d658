//! Serves the page that shows the live statistics.
//!
//! The page is built from `web/` and embedded: [`assets`]. Where the other services are, as a browser reaches them,
//! it is told by [`routes`], which also say what it may load. [`startup`] puts it together from [`settings`].
//!
//! Invariant: it has no database and no numbers. Everything the page shows, it gets from sse-gateway and ingest-api
//! by itself, and from no other host.

pub mod assets;
pub mod routes;
pub mod settings;
pub mod startup;
