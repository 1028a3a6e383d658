//! The `status` event: whether the counts are live.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
    /// When `upstream` became live, or when it was last known to be live, RFC 3339.
    pub since: String,
    /// The server's time, RFC 3339. A page can use it instead of its own clock.
    pub now: String,
    /// How old the counts of this stream are, in milliseconds: they have every event that was
    /// committed before. Each hop adds the time that it has had them, by its own clock, so the
    /// clocks need not agree; only the time in the network is missing. Absent before the first
    /// counts, and from older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// How long the client may follow the stream; absent if that has no end, and between gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<StreamAccess>,
}

/// How long a client may follow a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAccess {
    /// The number of seconds left. After 0, the stream ends.
    pub expires_in: u64,
    /// Why the stream ends now; absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<AccessEnd>,
}

/// Why a client may not follow a stream any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessEnd {
    /// Its credential was revoked.
    Revoked,
    /// Its credential has expired.
    Expired,
    /// The server has been cut off from the list of credentials for too long.
    Unknown,
}

impl Status {
    /// How old the counts were when the status was sent, as far as the sender says so.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.age_ms.map(Duration::from_millis)
    }

    /// The time from `since` until `now`, which does not depend on the reader's clock. Zero if they
    /// are not two times in that order.
    pub(crate) fn duration(&self) -> Duration {
        let time = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
        let age = time(&self.now).zip(time(&self.since)).map(|(now, since)| now - since);
        age.and_then(|age| age.try_into().ok()).unwrap_or_default()
    }
}
