//! What one tick adds to the counts.

use std::collections::BTreeMap;

use crate::{BucketTime, Metric, Retention, TimeUnit, Topic};

/// Changes of counts, summed by topic and bucket.
///
/// Bounded as the windows are, however much happened: of each topic only the newest buckets touched are kept, as
/// many as its window holds. A bucket older than these cannot be in the window once they are in it, so nothing is
/// lost that a window would show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    retention: Retention,
    topics: Vec<BTreeMap<BucketTime, i64>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self::within(Retention::default())
    }
}

impl Changes {
    /// No changes yet, and none ever of buckets that are not kept.
    #[must_use]
    pub fn within(retention: Retention) -> Self {
        Self { retention, topics: Topic::all().map(|_| BTreeMap::new()).collect() }
    }

    /// Adds events: their metric, the millisecond in which they happened, and by how much the number of such events
    /// grew or, below zero, shrank.
    pub fn add(&mut self, metric: Metric, time: BucketTime, delta: i64) {
        for unit in TimeUnit::ALL {
            let (topic, start) = (Topic::new(metric, unit), unit.truncate(time));
            if !self.retention.keeps(unit, start) {
                continue;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_does_not_keep_is_counted_by_the_others() {
        let midnight: BucketTime = "2026-08-27T00:00:00Z".parse().unwrap();
        let mut changes = Changes::within(Retention::default().since(TimeUnit::Second, midnight));
        changes.add(Metric::Transfers, "2026-08-26T23:59:59.999Z".parse().unwrap(), 1);
        changes.add(Metric::Transfers, midnight, 1);
        let sum =
            |unit| -> i64 { changes.of(Topic::new(Metric::Transfers, unit)).map(|(_, delta)| delta).sum() };
        assert_eq!((sum(TimeUnit::Second), sum(TimeUnit::Minute), sum(TimeUnit::Year)), (1, 2, 2));
    }
}
