//! The `status` event: whether the counts are live.

use serde::{Deserialize, Serialize};

/// Whether the counts follow the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamStatus {
    /// The counts follow the database.
    Live,
    /// The upstream is lost, or is stale itself. The counts may be old.
    Stale,
}

/// The data of a `status` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the counts follow the database.
    pub upstream: UpstreamStatus,
    /// When `upstream` last changed, RFC 3339.
    pub since: String,
    /// The server's time, RFC 3339. A page can use it instead of its own clock.
    pub now: String,
}
