//! What subscribers are told of the upstream.

use serde::{Deserialize, Serialize};

/// Whether the numbers follow the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Upstream {
    /// They do.
    Live,
    /// They did, until the time that the status names.
    Stale,
}

/// The data of a `status` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Status {
    /// Whether the numbers follow the database.
    pub upstream: Upstream,
    /// Since when, RFC 3339.
    pub since: String,
    /// The server's time, RFC 3339: a page need not trust its own clock.
    pub now: String,
}
