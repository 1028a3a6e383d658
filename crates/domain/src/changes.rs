//! By how much one tick changes the counts.

use std::collections::BTreeMap;

use crate::{BucketTime, Metric, Retention, TimeUnit, Topic};

/// Changes of counts, summed by topic and bucket.
///
/// Bounded like the windows, however many events there are: each topic keeps only the newest
/// buckets that were touched, at most as many as its window holds. A window that contains these has
/// no room for an older one, so nothing is lost that the window would show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    retention: Retention,
    topics: Vec<BTreeMap<BucketTime, i64>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self::with_retention(Retention::default())
    }
}

impl Changes {
    /// No changes yet. Changes of buckets that `retention` does not keep will be ignored.
    pub fn with_retention(retention: Retention) -> Self {
        Self { retention, topics: Topic::all().map(|_| BTreeMap::new()).collect() }
    }

    /// Adds to the counts of `metric` in every unit. `time` is the time of the events,
    /// `delta` how many were added (positive) or removed (negative).
    pub fn add(&mut self, metric: Metric, time: BucketTime, delta: i64) {
        for unit in TimeUnit::ALL {
            let buckets = &mut self.topics[Topic::new(metric, unit).index()];
            // First, because most rows of a statement on many past times end here, for most units.
            let full = buckets.len() >= unit.window();
            if full && buckets.first_key_value().is_some_and(|(&oldest, _)| time < oldest) {
                continue;
            }
            let start = unit.truncate(time);
            if !self.retention.keeps(unit, start) {
                continue;
            }
            if let Some(sum) = buckets.get_mut(&start) {
                *sum = sum.saturating_add(delta);
                continue;
            }
            if full {
                buckets.pop_first();
            }
            buckets.insert(start, delta);
        }
    }

    /// The changes of one topic, oldest bucket first.
    pub(crate) fn in_topic(&self, topic: Topic) -> impl Iterator<Item = (BucketTime, i64)> + '_ {
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
    fn a_unit_ignores_a_time_that_only_longer_units_keep() {
        let midnight: BucketTime = "2026-08-27T00:00:00Z".parse().unwrap();
        let mut changes =
            Changes::with_retention(Retention::default().since(TimeUnit::Second, midnight));
        changes.add(Metric::Transfers, "2026-08-26T23:59:59.999Z".parse().unwrap(), 1);
        changes.add(Metric::Transfers, midnight, 1);
        let sum = |unit| -> i64 {
            changes.in_topic(Topic::new(Metric::Transfers, unit)).map(|(_, delta)| delta).sum()
        };
        assert_eq!((sum(TimeUnit::Second), sum(TimeUnit::Minute), sum(TimeUnit::Year)), (1, 2, 2));
    }
}
