//! Encodes frames as server-sent events, each once.
//!
//! Subscribers in step hold the same version, so they get the same event: it is encoded for the
//! first of them and shared with the others. The caches belong to one published version. They are
//! dropped when the next one is published, and bounded until then.

use std::collections::HashMap;

use bytes::Bytes;
use domain::{FrameBase, Statistics, Topic, TopicFrame, Version};
use russe::{Event, Message};

use crate::event_id::EventId;
use crate::selection::{Payload, Selection};

/// The maximum number of events, and of fragments, cached for one version. Beyond it, each
/// subscriber's event is encoded separately.
const CACHED: usize = 512;

/// The maximum size of all cached events and fragments together, in bytes.
const CACHED_BYTES: usize = 16_777_216;

/// The length, in bytes, after which a line of JSON ends at the next bucket. Many clients read line
/// by line, and refuse lines of 64 KiB and more (Python's asyncio, Go's `bufio.Scanner`).
const LINE_BYTES: usize = 16_384;

/// Encodes the events of one published version, and caches them.
#[derive(Debug, Default)]
pub(crate) struct EventEncoder {
    events: HashMap<(Selection, FrameBase), Option<Bytes>>,
    /// Parts of events: one topic, with this maximum number of buckets.
    fragments: HashMap<(Topic, usize, FrameBase), Option<Bytes>>,
    cached_bytes: usize,
}

impl EventEncoder {
    /// The event that brings a subscriber from version `from` to the version of `statistics`.
    /// `None` if there is nothing to send.
    pub(crate) fn event(
        &mut self,
        statistics: &Statistics,
        selection: &Selection,
        from: Option<Version>,
    ) -> Option<Bytes> {
        // All subscribers that need a snapshot have the same base, whatever id they sent. A
        // thousand unknown or invented ids must not cost a thousand snapshots.
        let base = statistics.resume(from).base()?;
        let key = (selection.clone(), base);
        if let Some(event) = self.events.get(&key) {
            return event.clone();
        }
        let event = self.encode(statistics, selection, base);
        if self.events.len() < CACHED && self.reserve(event.as_ref()) {
            self.events.insert(key, event.clone());
        }
        event
    }

    /// The whole windows as JSON: one object, or an array.
    pub(crate) fn snapshot(&mut self, statistics: &Statistics, selection: &Selection) -> String {
        join(&self.fragments(statistics, selection, FrameBase::Empty), selection.is_array())
    }

    fn encode(
        &mut self,
        statistics: &Statistics,
        selection: &Selection,
        base: FrameBase,
    ) -> Option<Bytes> {
        let fragments = self.fragments(statistics, selection, base);
        if fragments.is_empty() {
            return None;
        }
        let (event, data) = match selection.payload() {
            Payload::Changes => {
                (Some(base.kind().as_str().into()), join(&fragments, selection.is_array()))
            }
            // Something changed, so the whole window is sent again.
            Payload::Full => {
                let topics = selection.topics().iter();
                let windows =
                    topics.map(|&topic| newest_first(statistics.snapshot(topic, selection.last())));
                (None, windows.collect::<Vec<_>>().join("\n"))
            }
        };
        let id = Some(EventId::new(statistics.version(), selection).to_string().into());
        encode_event(Event::Message(Message { id, event, retry: None, data: data.into() }))
    }

    /// The topics of a selection that have anything to send.
    fn fragments(
        &mut self,
        statistics: &Statistics,
        selection: &Selection,
        base: FrameBase,
    ) -> Vec<Bytes> {
        let topics = selection.topics().iter();
        topics
            .filter_map(|&topic| self.fragment(statistics, topic, selection.last(), base))
            .collect()
    }

    fn fragment(
        &mut self,
        statistics: &Statistics,
        topic: Topic,
        last: usize,
        base: FrameBase,
    ) -> Option<Bytes> {
        let key = (topic, last, base);
        if let Some(fragment) = self.fragments.get(&key) {
            return fragment.clone();
        }
        let fragment = statistics.topic_since(base, topic, last).map(|part| json(&part));
        if self.fragments.len() < CACHED && self.reserve(fragment.as_ref()) {
            self.fragments.insert(key, fragment.clone());
        }
        fragment
    }

    /// Reserves room for these bytes in the cache. `false` if there is none.
    fn reserve(&mut self, bytes: Option<&Bytes>) -> bool {
        let total = self.cached_bytes.saturating_add(bytes.map_or(0, Bytes::len));
        let fits = total <= CACHED_BYTES;
        if fits {
            self.cached_bytes = total;
        }
        fits
    }
}

/// The bytes of an event. Never `None`: russe refuses only ids and event names that contain a line
/// break or NUL, and no event of a hub has one.
pub(crate) fn encode_event(event: Event) -> Option<Bytes> {
    event.into_bytestring().ok().map(|text| Bytes::from(String::from(text)))
}

/// Joins fragments, each on lines of its own. russe writes each line as a `data:` line. A reader
/// joins these by newlines, which are white space between JSON tokens.
fn join(fragments: &[Bytes], array: bool) -> String {
    let length = fragments.iter().map(|fragment| fragment.len() + 2).sum::<usize>() + 2;
    let mut text = String::with_capacity(length);
    for (position, fragment) in fragments.iter().enumerate() {
        text.push_str(match (array, position) {
            (false, _) => "",
            (true, 0) => "[",
            (true, _) => "\n,",
        });
        text.push_str(&String::from_utf8_lossy(fragment));
    }
    if array {
        text.push(']');
    }
    text
}

fn json(topic: &TopicFrame) -> Bytes {
    // Names, times and numbers can always be serialized.
    Bytes::from(in_lines(&serde_json::to_string(topic).unwrap_or_default()))
}

fn newest_first(mut window: TopicFrame) -> String {
    window.buckets.reverse();
    in_lines(&serde_json::to_string(&window.buckets).unwrap_or_default())
}

/// Breaks JSON between buckets, so that no line is much longer than [`LINE_BYTES`].
fn in_lines(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + json.len() / LINE_BYTES);
    let mut line_start = 0;
    // No name and no time contains these characters, so they are always between two buckets.
    for (bucket_end, _) in json.match_indices("},{") {
        let line_end = bucket_end + "},".len();
        if line_end - line_start >= LINE_BYTES {
            text.push_str(&json[line_start..line_end]);
            text.push('\n');
            line_start = line_end;
        }
    }
    text.push_str(&json[line_start..]);
    text
}

#[cfg(test)]
mod tests {
    use domain::{Bucket, BucketTime, Frame, FrameKind, Nonce};

    use super::*;

    #[test]
    fn subscribers_that_need_a_snapshot_share_one() {
        let version = |nonce, tick| Version { nonce: Nonce::new(nonce), tick };
        let statistics = Statistics::new(version(1, 7));
        let mut encoder = EventEncoder::default();
        let mut event = |from| encoder.event(&statistics, &Selection::all(), from).unwrap();
        let first = event(None);
        for unknown in [version(2, 7), version(2, 8), version(1, 6)] {
            assert_eq!(event(Some(unknown)).as_ptr(), first.as_ptr());
        }
    }

    #[test]
    fn no_line_is_as_long_as_64_kib() {
        let version = Version { nonce: Nonce::new(1), tick: u64::MAX };
        let topics = Topic::all().map(|topic| {
            let mut time = topic.unit.truncate(BucketTime::MAX);
            let buckets = std::iter::repeat_with(|| {
                let bucket = Bucket { time, count: i64::MIN };
                let before = BucketTime::from_unix_milliseconds(time.unix_milliseconds() - 1);
                time = topic.unit.truncate(before.unwrap());
                bucket
            });
            let window = topic.unit.window();
            TopicFrame { topic, window, buckets: buckets.take(window).collect() }
        });
        let frame = Frame { kind: FrameKind::Snapshot, version, topics: topics.collect() };
        let mut statistics = Statistics::new(version);
        statistics.apply(&frame).unwrap();
        let mut encoder = EventEncoder::default();
        for topic in Topic::all() {
            let full = Selection::one(topic).with_payload(Payload::Full);
            for selection in [Selection::all(), Selection::one(topic), full] {
                let event = encoder.event(&statistics, &selection, None).unwrap();
                let longest = event.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
                assert!(longest < Some(32_768), "{longest:?} in {selection:?}");
            }
        }
    }
}
