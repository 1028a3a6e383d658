//! The limits and intervals of a hub.

use std::time::Duration;

/// The limits and intervals of a [`Hub`](crate::Hub).
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The minimum time between two announcements. Zero announces every change.
    pub pace: Duration,
    /// The interval of the `status` events to clients.
    pub heartbeat: Duration,
    /// The interval of the `status` events to gateways, which is the shortest that a client can ask
    /// for.
    pub internal_heartbeat: Duration,
    /// The maximum number of subscribers. More are refused.
    pub max_subscribers: usize,
    /// The minimum of the random delay after which subscribers are asked to reconnect.
    pub retry_min: Duration,
    /// The maximum of that delay.
    pub retry_max: Duration,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            pace: Duration::ZERO,
            heartbeat: Duration::from_secs(15),
            internal_heartbeat: Duration::from_secs(1),
            max_subscribers: 10_000,
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_millis(2_500),
        }
    }
}
