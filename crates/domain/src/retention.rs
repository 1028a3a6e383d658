//! How far back each unit keeps its buckets.

use crate::{BucketTime, TimeUnit};

/// The start of the oldest bucket that each unit keeps.
///
/// Units do not count events from before it: an expired bucket would otherwise come back with only
/// its newest events counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention([BucketTime; TimeUnit::ALL.len()]);

impl Default for Retention {
    /// Everything is kept.
    fn default() -> Self {
        Self([BucketTime::MIN; TimeUnit::ALL.len()])
    }
}

impl Retention {
    /// Keeps the buckets of `unit` that start at `time` or later. `time` must be the start of a
    /// bucket.
    #[must_use]
    pub fn since(mut self, unit: TimeUnit, time: BucketTime) -> Self {
        self.0[unit as usize] = time;
        self
    }

    /// Whether the bucket of `unit` that starts at `start` is kept.
    pub fn keeps(&self, unit: TimeUnit, start: BucketTime) -> bool {
        start >= self.0[unit as usize]
    }
}
