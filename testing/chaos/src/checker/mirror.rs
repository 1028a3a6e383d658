//! What one subscriber shows, kept only by what the documentation of the streams says.

use std::collections::BTreeMap;

use domain::{BucketTime, Frame, FrameKind, Topic, Version};

/// A bucket: the index of its topic, and the bucket's start.
pub(super) type Key = (usize, BucketTime);

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
            let topic = part.topic.index();
            let window = &mut self.windows[topic];
            for bucket in &part.buckets {
                window.buckets.insert(bucket.time, bucket.count);
                named.push((topic, bucket.time));
            }
            while window.buckets.len() > window.limit {
                window.buckets.pop_first();
            }
        }
        self.version = Some(frame.version);
        named
    }

    /// Whether the window reaches back to a bucket. A full one does not hold buckets older than its
    /// oldest.
    pub(super) fn reaches(&self, (topic, time): Key) -> bool {
        let Window { limit, buckets } = &self.windows[topic];
        buckets.len() < *limit
            || buckets.first_key_value().is_none_or(|(oldest, _)| time >= *oldest)
    }

    pub(super) fn get(&self, (topic, time): Key) -> Option<i64> {
        self.windows[topic].buckets.get(&time).copied()
    }
}
