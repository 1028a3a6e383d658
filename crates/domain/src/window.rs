//! The newest buckets of one topic.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::{Bucket, BucketTime};

/// The newest buckets of one topic, and which tick named each of them last.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    capacity: usize,
    buckets: BTreeMap<BucketTime, CountedBucket>,
    /// The same buckets, ordered by the tick that named them last.
    by_tick: BTreeSet<(u64, BucketTime)>,
}

#[derive(Debug, Clone, Copy)]
struct CountedBucket {
    count: i64,
    /// The last tick that named this bucket.
    tick: u64,
}

impl Window {
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { capacity, buckets: BTreeMap::new(), by_tick: BTreeSet::new() }
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The count of the bucket that starts at `time`; 0 if the window has no such bucket.
    pub(crate) fn count(&self, time: BucketTime) -> i64 {
        self.buckets.get(&time).map_or(0, |bucket| bucket.count)
    }

    /// Sets a bucket that `tick` names. A full window drops its oldest bucket for a newer one, and
    /// ignores an older one.
    pub(crate) fn set(&mut self, time: BucketTime, count: i64, tick: u64) {
        if let Some(bucket) = self.buckets.get_mut(&time) {
            self.by_tick.remove(&(bucket.tick, time));
            *bucket = CountedBucket { count, tick };
            self.by_tick.insert((tick, time));
            return;
        }
        if self.buckets.len() >= self.capacity {
            match self.buckets.first_key_value() {
                Some((&oldest, _)) if time < oldest => return,
                _ => {}
            }
            if let Some((oldest, bucket)) = self.buckets.pop_first() {
                self.by_tick.remove(&(bucket.tick, oldest));
            }
        }
        self.buckets.insert(time, CountedBucket { count, tick });
        self.by_tick.insert((tick, time));
    }

    /// The newest `limit` buckets, oldest first.
    pub(crate) fn newest(&self, limit: usize) -> Vec<Bucket> {
        let skipped = self.buckets.len().saturating_sub(limit);
        let newest = self.buckets.iter().skip(skipped);
        newest.map(|(&time, bucket)| Bucket { time, count: bucket.count }).collect()
    }

    /// Those of the newest `limit` buckets that a tick after `since` named, oldest first.
    pub(crate) fn named_since(&self, since: u64, limit: usize) -> Vec<Bucket> {
        let oldest = self.oldest_of_newest(limit);
        let mut times: Vec<BucketTime> = self
            .by_tick
            .range((Bound::Excluded((since, BucketTime::MAX)), Bound::Unbounded))
            .map(|&(_, time)| time)
            .filter(|time| oldest.is_none_or(|oldest| *time >= oldest))
            .collect();
        times.sort_unstable();
        times.into_iter().map(|time| Bucket { time, count: self.count(time) }).collect()
    }

    /// The oldest of the newest `limit` buckets; `None` if the window has no more than that.
    fn oldest_of_newest(&self, limit: usize) -> Option<BucketTime> {
        if self.buckets.len() <= limit {
            return None;
        }
        self.buckets.keys().rev().nth(limit.saturating_sub(1)).copied()
    }
}
