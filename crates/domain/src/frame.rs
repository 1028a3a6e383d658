//! What carries a state, or a change of it, to the next hop.

use serde::{Deserialize, Serialize};

use crate::{BucketTime, Topic, Version};

/// One bucket and its absolute count.
///
/// A count below zero means that rows which no trigger counted were deleted under the triggers' eyes; a
/// recount from the events cures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Bucket {
    /// The start of the bucket.
    #[cfg_attr(test, ts(type = "string"))]
    pub time: BucketTime,
    /// How many events it holds.
    pub count: i64,
}

/// Some buckets of one topic, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct TopicFrame {
    /// The topic, written `transfers/minute`.
    #[serde(with = "topic_as_text")]
    #[cfg_attr(test, ts(type = "string"))]
    pub topic: Topic,
    /// How many buckets the receiver keeps at most; beyond it the oldest go.
    pub window: usize,
    /// The buckets, oldest first.
    pub buckets: Vec<Bucket>,
}

/// How the receiver takes a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Replaces the whole state of the topics that it names.
    Snapshot,
    /// Sets the buckets that it names and leaves the others.
    Patch,
}

impl FrameKind {
    /// The name of the server-sent event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Patch => "patch",
        }
    }
}

/// One server-sent event: whoever has applied the frames up to `version` holds exactly that version's state
/// of the topics followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether the frame replaces or changes the state.
    pub kind: FrameKind,
    /// The state that the receiver then has.
    pub version: Version,
    /// The topics; a patch names only those that changed.
    pub topics: Vec<TopicFrame>,
}

mod topic_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::Topic;

    pub(super) fn serialize<S: Serializer>(topic: &Topic, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(topic)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Topic, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
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
