//! Encodes frames as server-sent events, each once.
//!
//! Subscribers in step hold the same version, so they get the same event: it is encoded for the
//! first of them and shared with the others. The caches belong to one published version. They are
//! dropped when the next one is published, and bounded until then.
//!
//! Invariant: nothing is encoded under the lock of a state. [`Events::find`] copies what an event
//! is made of, and [`EventParts`] is encoded without the state.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use domain::{FrameBase, Statistics, Topic, TopicFrame, Version};
use parking_lot::Mutex;
use russe::{Event, Message};
use service_kit::unsent::SharedBytes;

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

/// The maximum length, in bytes, of one bucket as JSON: a time of 27 characters, and a count of 20.
const BUCKET_BYTES: usize = 72;

/// The maximum length, in bytes, of all the rest of one topic, and of all the rest of an event.
const OTHER_BYTES: usize = 256;

/// The events of one published version, and their parts.
#[derive(Debug, Default)]
pub(crate) struct Events {
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// `None` if a subscriber with this base gets nothing.
    events: HashMap<EventKey, Option<SharedBytes>>,
    /// Parts of events: one topic, with this maximum number of buckets. `None` if it has not
    /// changed.
    fragments: HashMap<FragmentKey, Option<Bytes>>,
    bytes: usize,
}

type EventKey = (Selection, FrameBase);
type FragmentKey = (Topic, usize, FrameBase);

/// What a subscriber gets.
#[derive(Debug)]
pub(crate) enum Found {
    /// An event that was encoded before.
    Event(SharedBytes, Version),
    /// The parts of an event that was not.
    Parts(EventParts),
}

/// What an event is made of.
#[derive(Debug)]
pub(crate) struct EventParts {
    selection: Selection,
    base: FrameBase,
    version: Version,
    content: Content,
    /// Keeps the event.
    events: Arc<Events>,
}

#[derive(Debug)]
enum Content {
    /// A snapshot or the changes.
    Topics(TopicParts),
    /// The whole windows of [`Payload::Full`].
    Windows(Vec<TopicFrame>),
}

/// Topics that are to be encoded as JSON.
#[derive(Debug)]
pub(crate) struct TopicParts {
    parts: Vec<Part>,
    base: FrameBase,
    /// The maximum number of buckets per topic.
    last: usize,
    /// Whether the topics are an array.
    array: bool,
    /// Keeps the fragments.
    events: Arc<Events>,
}

/// One topic.
#[derive(Debug)]
enum Part {
    Fragment(Bytes),
    Frame(TopicFrame),
}

impl Events {
    /// What brings a subscriber from version `from` to the version of `statistics`, whose events
    /// these are. `None` if there is nothing to send.
    pub(crate) fn find(
        self: &Arc<Self>,
        statistics: &Statistics,
        selection: &Selection,
        from: Option<Version>,
    ) -> Option<Found> {
        // All subscribers that need a snapshot have the same base, whatever id they sent. A
        // thousand unknown or invented ids must not cost a thousand snapshots.
        let base = statistics.resume(from).base()?;
        let key = (selection.clone(), base);
        if let Some(event) = self.cache.lock().events.get(&key) {
            return event.clone().map(|event| Found::Event(event, statistics.version()));
        }
        let (selection, base) = key;
        let topics = self.topics(statistics, &selection, base);
        if topics.parts.is_empty() {
            self.cache.lock().keep_event((selection, base), None);
            return None;
        }
        let content = match selection.payload() {
            Payload::Changes => Content::Topics(topics),
            // Something changed, so the whole window is sent again.
            Payload::Full => {
                let window = |&topic| statistics.snapshot(topic, selection.last());
                Content::Windows(selection.topics().iter().map(window).collect())
            }
        };
        let (version, events) = (statistics.version(), Arc::clone(self));
        Some(Found::Parts(EventParts { selection, base, version, content, events }))
    }

    /// The whole windows of a selection.
    pub(crate) fn snapshot(
        self: &Arc<Self>,
        statistics: &Statistics,
        selection: &Selection,
    ) -> TopicParts {
        self.topics(statistics, selection, FrameBase::Empty)
    }

    /// The topics of a selection that have anything to send.
    fn topics(
        self: &Arc<Self>,
        statistics: &Statistics,
        selection: &Selection,
        base: FrameBase,
    ) -> TopicParts {
        let last = selection.last();
        let part = |&topic| {
            let key = (topic, last, base);
            if let Some(fragment) = self.cache.lock().fragments.get(&key) {
                return fragment.clone().map(Part::Fragment);
            }
            let frame = statistics.topic_since(base, topic, last);
            if frame.is_none() {
                self.cache.lock().keep_fragment(key, None);
            }
            frame.map(Part::Frame)
        };
        let parts = selection.topics().iter().filter_map(part).collect();
        let events = Arc::clone(self);
        TopicParts { parts, base, last, array: selection.is_array(), events }
    }
}

impl Cache {
    /// Keeps an event if there is room, and returns the one that is kept: two threads may have
    /// encoded the same event at the same time.
    fn keep_event(&mut self, key: EventKey, event: Option<SharedBytes>) -> Option<SharedBytes> {
        keep(&mut self.events, &mut self.bytes, key, event, SharedBytes::len)
    }

    fn keep_fragment(&mut self, key: FragmentKey, fragment: Option<Bytes>) -> Option<Bytes> {
        keep(&mut self.fragments, &mut self.bytes, key, fragment, Bytes::len)
    }
}

fn keep<K: Eq + std::hash::Hash, V: Clone>(
    cached: &mut HashMap<K, Option<V>>,
    cached_bytes: &mut usize,
    key: K,
    encoded: Option<V>,
    length: impl Fn(&V) -> usize,
) -> Option<V> {
    if let Some(other) = cached.get(&key) {
        return other.clone();
    }
    let total = cached_bytes.saturating_add(encoded.as_ref().map_or(0, length));
    if cached.len() < CACHED && total <= CACHED_BYTES {
        *cached_bytes = total;
        cached.insert(key, encoded.clone());
    }
    encoded
}

impl EventParts {
    /// The number of buckets that are still to be encoded.
    pub(crate) fn buckets(&self) -> usize {
        match &self.content {
            Content::Windows(windows) => windows.iter().map(|window| window.buckets.len()).sum(),
            Content::Topics(topics) => topics.parts.iter().map(Part::buckets).sum(),
        }
    }

    /// The maximum length of the event, in bytes.
    pub(crate) fn max_bytes(&self) -> usize {
        let frame = |buckets: usize| OTHER_BYTES + buckets * BUCKET_BYTES;
        let part = |part: &Part| match part {
            Part::Fragment(fragment) => fragment.len(),
            Part::Frame(topic) => frame(topic.buckets.len()),
        };
        let json: usize = match &self.content {
            Content::Topics(topics) => topics.parts.iter().map(part).sum(),
            Content::Windows(windows) => {
                windows.iter().map(|window| frame(window.buckets.len())).sum()
            }
        };
        // Each line of JSON begins with `data: `.
        let topics = self.selection.topics().len();
        OTHER_BYTES + json + (json / LINE_BYTES + topics) * "\ndata: ,".len()
    }

    /// The event, which is kept for other subscribers, and its version.
    pub(crate) fn encode(self) -> Option<(SharedBytes, Version)> {
        let Self { selection, base, version, content, events } = self;
        let (event, data) = match content {
            Content::Topics(topics) => (Some(base.kind().as_str().into()), topics.json()),
            Content::Windows(windows) => {
                let windows = windows.into_iter().map(newest_first);
                (None, windows.collect::<Vec<_>>().join("\n"))
            }
        };
        let id = Some(EventId::new(version, &selection).to_string().into());
        let message = Message { id, event, retry: None, data: data.into() };
        let event = encode_event(Event::Message(message)).map(SharedBytes::new);
        let event = events.cache.lock().keep_event((selection, base), event)?;
        Some((event, version))
    }
}

impl TopicParts {
    /// One object, or an array.
    pub(crate) fn json(self) -> String {
        let Self { parts, base, last, array, events } = self;
        let fragment = |part| match part {
            Part::Fragment(fragment) => Some(fragment),
            Part::Frame(frame) => {
                let fragment = json(&frame);
                events.cache.lock().keep_fragment((frame.topic, last, base), Some(fragment))
            }
        };
        join(&parts.into_iter().filter_map(fragment).collect::<Vec<_>>(), array)
    }
}

impl Part {
    /// The number of buckets that are still to be encoded.
    fn buckets(&self) -> usize {
        match self {
            Self::Fragment(_) => 0,
            Self::Frame(frame) => frame.buckets.len(),
        }
    }
}

/// The bytes of an event. Never `None`: russe refuses only ids and event names that contain a line
/// break or NUL, and no event of a hub has one.
pub(crate) fn encode_event(event: Event) -> Option<Bytes> {
    // Without the spare capacity, which may be as large as the event: the budget of unsent bytes
    // counts the length.
    let text = String::from(event.into_bytestring().ok()?);
    Some(Bytes::from(text.into_boxed_str().into_boxed_bytes()))
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
    use service_kit::unsent::UnsentBytes;

    use super::*;

    #[test]
    fn subscribers_that_need_a_snapshot_share_one() {
        let version = |nonce, tick| Version { nonce: Nonce::new(nonce), tick };
        let statistics = Statistics::new(version(1, 7));
        let events = Arc::new(Events::default());
        let parts = |from| match events.find(&statistics, &Selection::all(), from).unwrap() {
            Found::Parts(parts) => parts,
            Found::Event(..) => panic!("nothing was encoded yet"),
        };
        // Two threads may find it missing at the same time.
        let [first, second] = [parts(None), parts(None)];
        let address = |event: SharedBytes| event.share(&UnsentBytes::unlimited()).unwrap().as_ptr();
        let [first, second] = [first, second].map(|parts| address(parts.encode().unwrap().0));
        assert_eq!(second, first);
        for unknown in [version(2, 7), version(2, 8), version(1, 6)] {
            match events.find(&statistics, &Selection::all(), Some(unknown)).unwrap() {
                Found::Event(event, _) => assert_eq!(address(event), first),
                Found::Parts(_) => panic!("it was encoded before"),
            }
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
        let events = Arc::new(Events::default());
        for topic in Topic::all() {
            let full = Selection::one(topic).with_payload(Payload::Full);
            for selection in [Selection::all(), Selection::one(topic), full] {
                let event = match events.find(&statistics, &selection, None).unwrap() {
                    Found::Event(event, _) => event,
                    Found::Parts(parts) => {
                        let max = parts.max_bytes();
                        let event = parts.encode().unwrap().0;
                        assert!(event.len() <= max, "{} > {max} for {selection:?}", event.len());
                        event
                    }
                };
                let event = event.share(&UnsentBytes::unlimited()).unwrap();
                let longest = event.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
                assert!(longest < Some(32_768), "{longest:?} in {selection:?}");
            }
        }
    }
}
