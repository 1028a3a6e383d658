//! The bytes that a gateway reads from its upstream.

use std::sync::LazyLock;

use bytes::BytesMut;
use domain::{Frame, Statistics, Topic, TopicFrame};
use statistics_stream::decoder::{EventDecoder, StreamEvent};
use tokio_util::codec::Decoder;

use crate::cuts;

/// The largest event, in bytes. It is small, so that the fuzzer soon finds larger ones.
const LARGEST: usize = 600;

/// New decoders, to be cloned, because creating one costs more than using it: one with a size
/// limit, and one without.
static BOUNDED: LazyLock<EventDecoder> = LazyLock::new(|| EventDecoder::new(LARGEST));
static UNBOUNDED: LazyLock<EventDecoder> = LazyLock::new(|| EventDecoder::new(usize::MAX));

/// The decoded events do not depend on how the bytes are split, and never more than one event is
/// buffered. A frame is applied completely or not at all. A client that receives the resulting
/// state has the same state.
///
/// # Panics
/// This does not hold.
pub fn check(bytes: &[u8]) {
    let [whole, others @ ..] = cuts(bytes);
    let (events, error) = decoded_by(&BOUNDED, &whole, LARGEST);
    for parts in others {
        let (events_of_parts, error_of_parts) = decoded_by(&BOUNDED, &parts, LARGEST);
        assert_eq!(events_of_parts, events, "the events of {} parts", parts.len());
        assert_eq!(error_of_parts, error, "the error of {} parts", parts.len());
    }
    let frames = events.into_iter().filter_map(|event| match event {
        StreamEvent::Frame(frame) => Some(frame),
        StreamEvent::Status(_) | StreamEvent::Unknown => None,
    });
    check_applied(&frames.collect::<Vec<_>>());
}

/// The decoded events of a text, and the error that ended the decoding.
pub(crate) fn decoded(event: &str) -> (Vec<StreamEvent>, Option<String>) {
    decoded_by(&UNBOUNDED, &[event.as_bytes()], usize::MAX)
}

/// The events that are decoded before the bytes end or an error occurs, and the error.
fn decoded_by(
    decoder: &EventDecoder,
    parts: &[&[u8]],
    largest: usize,
) -> (Vec<StreamEvent>, Option<String>) {
    let mut decoder = decoder.clone();
    let mut source = BytesMut::new();
    let mut all = Vec::new();
    for part in parts {
        source.extend_from_slice(part);
        loop {
            match decoder.decode(&mut source) {
                Ok(Some(event)) => all.push(event),
                Ok(None) => break,
                Err(error) => return (all, Some(error.to_string())),
            }
        }
        assert!(source.len() <= largest, "{} bytes are buffered", source.len());
    }
    loop {
        match decoder.decode_eof(&mut source) {
            Ok(Some(event)) => all.push(event),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error.to_string())),
        }
    }
}

fn check_applied(frames: &[Frame]) {
    let Some(first) = frames.first() else { return };
    let mut state = Statistics::new(first.version);
    let mut shown = content(&state);
    for frame in frames {
        let mut next = state.clone();
        let applied = next.apply(frame);
        let after = content(&next);
        if applied.is_err() {
            assert_eq!(
                (next.version(), &after),
                (state.version(), &shown),
                "a refused frame must not change the state"
            );
        } else {
            assert_eq!(next.version(), frame.version);
            for part in &after {
                let sorted = part.buckets.is_sorted_by(|one, other| one.time < other.time);
                assert!(sorted && part.buckets.len() <= part.window, "{part:?}");
                assert!(part.window <= part.topic.unit.window(), "{part:?}");
            }
        }
        state = next;
        shown = after;
    }
    let topics: Vec<Topic> = Topic::all().collect();
    let Some(frame) = state.frame_since(None, &topics) else {
        panic!("there is no snapshot of a state")
    };
    assert_eq!(
        decoded(&encoded(&frame)),
        (vec![StreamEvent::Frame(frame.clone())], None),
        "a written frame must be read again"
    );
    let mut receiver = Statistics::new(frame.version);
    assert_eq!(receiver.apply(&frame), Ok(()));
    assert_eq!(content(&receiver), shown);
}

/// The frame as an event, as a publisher writes it.
pub(crate) fn encoded(frame: &Frame) -> String {
    let data = serde_json::to_string(&frame.topics).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", frame.version, frame.kind.as_str())
}

/// The window of every topic.
pub(crate) fn content(statistics: &Statistics) -> Vec<TopicFrame> {
    Topic::all().map(|topic| statistics.snapshot(topic, usize::MAX)).collect()
}
