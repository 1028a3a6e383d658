//! Since when the buckets of each unit are kept.

use crate::{BucketTime, TimeUnit};

/// The start of the oldest bucket of each unit that is kept; whatever happened before it is not counted by that
/// unit, so that a bucket whose count was given up does not come back with a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention([BucketTime; TimeUnit::ALL.len()]);

impl Default for Retention {
    /// Everything is kept.
    fn default() -> Self {
        Self([BucketTime::MIN; TimeUnit::ALL.len()])
    }
}

impl Retention {
    /// Keeps the buckets of `unit` that begin at `time` or later; `time` is the start of one.
    #[must_use]
    pub fn since(mut self, unit: TimeUnit, time: BucketTime) -> Self {
        self.0[unit as usize] = time;
        self
    }

    /// Whether the bucket of `unit` that begins at `start` is kept.
    #[must_use]
    pub fn keeps(&self, unit: TimeUnit, start: BucketTime) -> bool {
        start >= self.0[unit as usize]
    }
}
