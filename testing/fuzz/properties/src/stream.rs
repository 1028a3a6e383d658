//! The bytes that a gateway reads from its upstream.

use std::sync::LazyLock;

use bytes::BytesMut;
use domain::{Frame, Statistics, Topic, TopicFrame};
use statistics_stream::decoder::{EventDecoder, StreamEvent};
use tokio_util::codec::Decoder;

use crate::cuts;

/// The largest event, in bytes: small, so that larger ones are found soon.
const LARGEST: usize = 600;

/// Decoders that have decoded nothing yet, for events of such a size and of any: to make one costs more than to use it.
static BOUNDED: LazyLock<EventDecoder> = LazyLock::new(|| EventDecoder::new(LARGEST));
static UNBOUNDED: LazyLock<EventDecoder> = LazyLock::new(|| EventDecoder::new(usize::MAX));

/// What the bytes tell does not depend on where they are cut, and never waits for more than an event. A frame is taken
/// over wholly or not at all, and whoever is sent what a state then is holds the same state.
///
/// # Panics
/// Where this does not hold.
pub fn check(bytes: &[u8]) {
    let [whole, others @ ..] = cuts(bytes);
    let (told, error) = decoded_by(&BOUNDED, &whole, LARGEST);
    for parts in others {
        let (told_in_parts, error_in_parts) = decoded_by(&BOUNDED, &parts, LARGEST);
        assert_eq!(told_in_parts, told, "what is told in {} parts", parts.len());
        assert_eq!(error_in_parts, error, "the error in {} parts", parts.len());
    }
    let frames = told.into_iter().filter_map(|told| match told {
        StreamEvent::Frame(frame) => Some(frame),
        StreamEvent::Status(_) | StreamEvent::Unknown => None,
    });
    applied(&frames.collect::<Vec<_>>());
}

/// What is told by an event, and why it cannot be understood.
pub(crate) fn decoded(event: &str) -> (Vec<StreamEvent>, Option<String>) {
    decoded_by(&UNBOUNDED, &[event.as_bytes()], usize::MAX)
}

/// What is told before the bytes end or cannot be understood, and why they cannot.
fn decoded_by(decoder: &EventDecoder, parts: &[&[u8]], largest: usize) -> (Vec<StreamEvent>, Option<String>) {
    let (mut decoder, mut source) = (decoder.clone(), BytesMut::new());
    let mut all = Vec::new();
    for part in parts {
        source.extend_from_slice(part);
        loop {
            match decoder.decode(&mut source) {
                Ok(Some(told)) => all.push(told),
                Ok(None) => break,
                Err(error) => return (all, Some(error.to_string())),
            }
        }
        assert!(source.len() <= largest, "{} bytes wait", source.len());
    }
    loop {
        match decoder.decode_eof(&mut source) {
            Ok(Some(told)) => all.push(told),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error.to_string())),
        }
    }
}

fn applied(frames: &[Frame]) {
    let mut state: Option<(Statistics, Vec<TopicFrame>)> = None;
    for frame in frames {
        let (held, before) = state.take().unwrap_or_else(|| {
            let new = Statistics::new(frame.version);
            let content = content(&new);
            (new, content)
        });
        let mut next = held.clone();
        let applied = next.apply(frame);
        let after = content(&next);
        if applied.is_err() {
            assert_eq!(
                (next.version(), &after),
                (held.version(), &before),
                "a frame that was refused changed the state"
            );
        } else {
            assert_eq!(next.version(), frame.version);
            for part in &after {
                let sorted = part.buckets.is_sorted_by(|one, other| one.time < other.time);
                assert!(sorted && part.buckets.len() <= part.window, "{part:?}");
                assert!(part.window <= part.topic.unit.window(), "{part:?}");
            }
        }
        state = Some((next, after));
    }
    let Some((state, shown)) = state else { return };
    let topics: Vec<Topic> = Topic::all().collect();
    let Some(frame) = state.frame_since(None, &topics) else { panic!("a state that cannot be shown") };
    assert_eq!(
        decoded(&encoded(&frame)),
        (vec![StreamEvent::Frame(frame.clone())], None),
        "what was written is read again"
    );
    let mut receiver = Statistics::new(frame.version);
    assert_eq!(receiver.apply(&frame), Ok(()));
    assert_eq!(content(&receiver), shown);
}

/// The frame as an event, as any publisher writes it.
pub(crate) fn encoded(frame: &Frame) -> String {
    let data = serde_json::to_string(&frame.topics).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", frame.version, frame.kind.as_str())
}

/// Every window of a state.
pub(crate) fn content(statistics: &Statistics) -> Vec<TopicFrame> {
    Topic::all().map(|topic| statistics.snapshot(topic, usize::MAX)).collect()
}
