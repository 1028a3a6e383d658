//! Events as bytes, each encoded once.
//!
//! Subscribers that are in step have the same version, so they get the same event: it is encoded for the first
//! of them and shared by the others. Every cache is for one published version, is emptied when the next one is
//! published, and is bounded in between.

use std::collections::HashMap;

use bytes::Bytes;
use domain::{FrameKind, Resume, Statistics, Topic, TopicFrame, Version};
use russe::{Event, Message};

use crate::selection::{Payload, Selection};

/// How many events and fragments are kept at most for one version. Beyond it an event is encoded for its
/// subscriber alone.
const CACHED: usize = 512;

/// How many bytes these may have together.
const CACHED_BYTES: usize = 16_777_216;

/// Encodes events of one published version, and remembers them.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    events: HashMap<(Selection, Option<Version>), Option<Bytes>>,
    fragments: HashMap<(Topic, usize, Option<u64>), Option<Bytes>>,
    bytes: usize,
}

impl Frames {
    /// The event that brings a subscriber from version `from` to that of `statistics`, where there is one.
    pub(crate) fn event(
        &mut self,
        statistics: &Statistics,
        selection: &Selection,
        from: Option<Version>,
    ) -> Option<Bytes> {
        // Whoever needs a snapshot gets the same one, whatever id it came with: a thousand ids of another term, or made
        // up, must not cost a thousand snapshots.
        let from = from.filter(|from| statistics.resume(*from) != Resume::Snapshot);
        let key = (selection.clone(), from);
        if let Some(event) = self.events.get(&key) {
            return event.clone();
        }
        let event = self.encode(statistics, selection, from);
        if self.events.len() < CACHED && self.has_room(event.as_ref()) {
            self.events.insert(key, event.clone());
        }
        event
    }

    /// The present state as JSON: one topic, or an array.
    pub(crate) fn snapshot(&mut self, statistics: &Statistics, selection: &Selection) -> String {
        let topics = selection.topics().to_vec();
        let parts = topics.into_iter().filter_map(|topic| self.part(statistics, selection, topic, None));
        join(&parts.collect::<Vec<_>>(), selection.is_array())
    }

    fn encode(
        &mut self,
        statistics: &Statistics,
        selection: &Selection,
        from: Option<Version>,
    ) -> Option<Bytes> {
        let (kind, since) = match from.map(|from| (from.tick, statistics.resume(from))) {
            Some((_, Resume::Ahead)) => return None,
            Some((tick, Resume::Patch)) => (FrameKind::Patch, Some(tick)),
            None | Some((_, Resume::Snapshot)) => (FrameKind::Snapshot, None),
        };
        let parts: Vec<Bytes> = selection
            .topics()
            .iter()
            .filter_map(|&topic| self.part(statistics, selection, topic, since))
            .collect();
        if parts.is_empty() {
            return None;
        }
        let (event, data) = match selection.payload() {
            Payload::Changes => (Some(kind.as_str().into()), join(&parts, selection.is_array())),
            // Something changed, or nothing was sent yet: either way, all of it.
            Payload::Full => {
                let topics = selection.topics().iter();
                let windows = topics.map(|&topic| newest_first(statistics.snapshot(topic, selection.last())));
                (None, windows.collect::<Vec<_>>().join("\n"))
            }
        };
        let id = Some(statistics.version().to_string().into());
        encoded(Event::Message(Message { id, event, retry: None, data: data.into() }))
    }

    /// Whether these may be kept, too; they then count.
    fn has_room(&mut self, bytes: Option<&Bytes>) -> bool {
        let with = self.bytes.saturating_add(bytes.map_or(0, Bytes::len));
        let room = with <= CACHED_BYTES;
        if room {
            self.bytes = with;
        }
        room
    }

    /// One topic's changes since a tick, where there are any, or its whole window.
    fn part(
        &mut self,
        statistics: &Statistics,
        selection: &Selection,
        topic: Topic,
        since: Option<u64>,
    ) -> Option<Bytes> {
        let key = (topic, selection.last(), since);
        if let Some(fragment) = self.fragments.get(&key) {
            return fragment.clone();
        }
        let part = match since {
            Some(tick) => {
                let changes = statistics.changes_since(tick, topic, selection.last());
                (!changes.buckets.is_empty()).then_some(changes)
            }
            None => Some(statistics.snapshot(topic, selection.last())),
        };
        let fragment = part.map(|part| json(&part));
        if self.fragments.len() < CACHED && self.has_room(fragment.as_ref()) {
            self.fragments.insert(key, fragment.clone());
        }
        fragment
    }
}

/// The event as bytes. It has no field that could not be encoded, so none is ever missing.
pub(crate) fn encoded(event: Event) -> Option<Bytes> {
    event.into_bytestring().ok().map(bytestring_bytes)
}

fn bytestring_bytes(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

/// Each fragment on a line of its own, which becomes a `data:` line of its own: a newline between JSON tokens is
/// white space.
fn join(parts: &[Bytes], array: bool) -> String {
    let mut text = String::with_capacity(parts.iter().map(|part| part.len() + 2).sum::<usize>() + 2);
    for (place, part) in parts.iter().enumerate() {
        text.push_str(match (array, place) {
            (false, _) => "",
            (true, 0) => "[",
            (true, _) => "\n,",
        });
        text.push_str(&String::from_utf8_lossy(part));
    }
    if array {
        text.push(']');
    }
    text
}

fn json(part: &TopicFrame) -> Bytes {
    // Names, times and numbers: none of them can fail to be written.
    Bytes::from(serde_json::to_vec(part).unwrap_or_default())
}

fn newest_first(mut window: TopicFrame) -> String {
    window.buckets.reverse();
    serde_json::to_string(&window.buckets).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use domain::Nonce;

    use super::*;

    #[test]
    fn all_who_need_a_snapshot_share_one() {
        let version = |nonce, tick| Version { nonce: Nonce::new(nonce), tick };
        let statistics = Statistics::new(version(1, 7));
        let mut frames = Frames::default();
        let mut event = |from| frames.event(&statistics, &Selection::all(), from).unwrap();
        let first = event(None);
        for unknown in [version(2, 7), version(2, 8), version(1, 6)] {
            assert_eq!(event(Some(unknown)).as_ptr(), first.as_ptr());
        }
    }
}
