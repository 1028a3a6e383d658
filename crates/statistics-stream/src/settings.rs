//! What a hub may use, and what is counted of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many frames subscribers got.
#[derive(Debug, Default)]
pub struct Deliveries {
    delivered: AtomicU64,
    conflated: AtomicU64,
}

impl Deliveries {
    /// How many frames were handed to subscribers.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// How many frames subscribers did not get one by one, because they were not ready for them: each is within the
    /// next one they got.
    #[must_use]
    pub fn conflated(&self) -> u64 {
        self.conflated.load(Ordering::Relaxed)
    }

    /// A frame goes to a subscriber, in the place of `skipped` others before it.
    pub(crate) fn count(&self, skipped: u64) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        self.conflated.fetch_add(skipped, Ordering::Relaxed);
    }
}

/// What a hub may use, and how often it speaks.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The shortest time between two announcements; zero announces each change.
    pub pace: Duration,
    /// How often clients are told that the numbers are live, or stale.
    pub heartbeat: Duration,
    /// How often gateways are.
    pub internal_heartbeat: Duration,
    /// How many subscribers there may be.
    pub max_subscribers: usize,
    /// Subscribers are told to wait a random time of at least this before they reconnect …
    pub retry_min: Duration,
    /// … and of at most this.
    pub retry_max: Duration,
    /// Where deliveries are counted: by all hubs that were made with this or a clone of it.
    pub deliveries: Arc<Deliveries>,
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
            deliveries: Arc::default(),
        }
    }
}
