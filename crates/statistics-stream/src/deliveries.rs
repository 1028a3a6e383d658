//! Counters of the frames that subscribers got.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many frames subscribers got, and how many were conflated. The hubs of several terms can
/// share one, so that its numbers go on.
#[derive(Debug, Default)]
pub struct Deliveries {
    delivered: AtomicU64,
    conflated: AtomicU64,
}

impl Deliveries {
    /// Frames that were sent to subscribers.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Frames that a subscriber was not ready for. Each is contained in the next frame that the
    /// subscriber got.
    pub fn conflated(&self) -> u64 {
        self.conflated.load(Ordering::Relaxed)
    }

    /// Counts one frame that replaces `skipped` earlier ones.
    pub(crate) fn count(&self, skipped: u64) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        self.conflated.fetch_add(skipped, Ordering::Relaxed);
    }
}
