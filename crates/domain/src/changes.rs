//! What one tick adds to the counts.

use std::collections::BTreeMap;

use crate::{BucketTime, Metric, TimeUnit, Topic};

/// Changes of counts, summed by topic and bucket.
///
/// Bounded as the windows are, however much happened: of each topic only the newest buckets touched are kept, as
/// many as its window holds. A bucket older than these cannot be in the window once they are in it, so nothing is
/// lost that a window would show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    topics: Vec<BTreeMap<BucketTime, i64>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { topics: Topic::all().map(|_| BTreeMap::new()).collect() }
    }
}

impl Changes {
    /// Adds events: their metric, the millisecond in which they happened, and by how much the number of such events
    /// grew or, below zero, shrank.
    pub fn add(&mut self, metric: Metric, time: BucketTime, delta: i64) {
        for unit in TimeUnit::ALL {
            let (topic, start) = (Topic::new(metric, unit), unit.truncate(time));
            let buckets = &mut self.topics[topic.index()];
            if let Some(sum) = buckets.get_mut(&start) {
                *sum = sum.saturating_add(delta);
                continue;
            }
            if buckets.len() >= unit.window() {
                match buckets.first_key_value() {
                    Some((&oldest, _)) if start < oldest => continue,
                    _ => buckets.pop_first(),
                };
            }
            buckets.insert(start, delta);
        }
    }

    /// What was added to a topic, oldest first.
    pub(crate) fn of(&self, topic: Topic) -> impl Iterator<Item = (BucketTime, i64)> + '_ {
        self.topics[topic.index()].iter().map(|(&time, &delta)| (time, delta))
    }
}

impl FromIterator<(Metric, BucketTime, i64)> for Changes {
    fn from_iter<T: IntoIterator<Item = (Metric, BucketTime, i64)>>(events: T) -> Self {
        let mut changes = Self::default();
        for (metric, time, delta) in events {
            changes.add(metric, time, delta);
        }
        changes
    }
}
