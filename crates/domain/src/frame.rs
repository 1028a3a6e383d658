//! Frames: how a state, or a change of it, travels to the next hop.

use serde::{Deserialize, Serialize};

use crate::{BucketTime, Topic, Version};

/// One bucket and its absolute count.
///
/// A count can be negative: rows that no trigger had counted were deleted, and the triggers counted
/// the deletion. Counting them again (`stats-notifier rebuild`) corrects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The start of the bucket.
    pub time: BucketTime,
    /// How many events happened in it.
    pub count: i64,
}

/// Some buckets of one topic, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicFrame {
    /// The topic, written `transfers/minute`.
    pub topic: Topic,
    /// How many buckets the receiver keeps. Beyond that it drops the oldest.
    pub window: usize,
    /// The buckets, oldest first.
    pub buckets: Vec<Bucket>,
}

/// How the receiver applies a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Replaces the whole state of the topics that it names.
    Snapshot,
    /// Sets the buckets that it names and leaves the others unchanged.
    Patch,
}

impl FrameKind {
    /// The name of the server-sent event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Patch => "patch",
        }
    }
}

/// One server-sent event. A receiver that has applied all frames up to `version` holds exactly the
/// state of that version, for the topics that it follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether the frame replaces or changes the state.
    pub kind: FrameKind,
    /// The version of the state that the receiver then holds.
    pub version: Version,
    /// A snapshot names every topic that the receiver follows, a patch only those that changed.
    pub topics: Vec<TopicFrame>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_fixed() {
        let json = r#"{"topic":"transfers/minute","window":1440,"buckets":[{"time":"2026-11-23T09:37:00Z","count":12}]}"#;
        let frame: TopicFrame = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&frame).unwrap(), json);
    }
}
