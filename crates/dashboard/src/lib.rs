//! Serves the page that shows the live statistics.
//!
//! The page is built from `web/` and embedded ([`assets`]). [`routes`] serves it, with the
//! addresses of the other services and a policy of what it may load, and `session` makes a key
//! the session of a browser. [`startup`] puts the service together from [`settings`].
//!
//! Invariant: the service has no database and no counts. The page itself requests everything it
//! shows from sse-gateway and ingest-api, and from no other host.

pub mod assets;
pub mod routes;
mod session;
pub mod settings;
pub mod startup;
