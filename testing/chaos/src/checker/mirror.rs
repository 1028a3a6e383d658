//! What one subscriber shows, kept only by what the documentation of the streams says.

use std::collections::BTreeMap;

use domain::{BucketTime, Frame, FrameKind, Topic, Version};

/// A bucket: its topic and its start.
pub(super) type Key = (Topic, BucketTime);

/// A window of one topic.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// The most buckets that it holds.
    pub(super) limit: usize,
    pub(super) buckets: BTreeMap<BucketTime, i64>,
}

/// A subscriber's windows of all topics.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    pub(super) version: Option<Version>,
    /// By the index of the topic.
    pub(super) windows: Vec<Window>,
}

impl Default for Mirror {
    fn default() -> Self {
        let window = |topic: Topic| Window { limit: topic.unit.window(), buckets: BTreeMap::new() };
        let windows = Topic::all().map(window).collect();
        Self { version: None, windows }
    }
}

impl Mirror {
    /// Applies a frame, and returns the buckets that it names. A topic that a snapshot does not
    /// name has no buckets.
    pub(super) fn apply(&mut self, frame: &Frame) -> Vec<Key> {
        let mut named = Vec::new();
        if frame.kind == FrameKind::Snapshot {
            self.windows.iter_mut().for_each(|window| window.buckets.clear());
        }
        for part in &frame.topics {
            let window = &mut self.windows[part.topic.index()];
            for bucket in &part.buckets {
                window.buckets.insert(bucket.time, bucket.count);
                named.push((part.topic, bucket.time));
            }
            while window.buckets.len() > window.limit {
                window.buckets.pop_first();
            }
        }
        self.version = Some(frame.version);
        named
    }

    /// The oldest time that the window of a topic reaches back to. A full one does not hold buckets
    /// older than its oldest.
    pub(super) fn oldest(&self, topic: Topic) -> BucketTime {
        let Window { limit, buckets } = &self.windows[topic.index()];
        let oldest = buckets.first_key_value().filter(|_| buckets.len() >= *limit);
        oldest.map_or(BucketTime::MIN, |(oldest, _)| *oldest)
    }

    pub(super) fn get(&self, (topic, time): Key) -> Option<i64> {
        self.windows[topic.index()].buckets.get(&time).copied()
    }
}
