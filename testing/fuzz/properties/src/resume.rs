//! `Last-Event-ID`: how a gateway parses it, and how it brings the client to the current state.
//!
//! The first line of the bytes is the header. Every two bytes after it are a frame that the gateway
//! receives.

use std::sync::LazyLock;

use actix_web::http::header::HeaderValue;
use actix_web::test::TestRequest;
use domain::{
    Bucket, BucketTime, Frame, FrameKind, Metric, Nonce, Resume, Statistics, TimeUnit, Topic,
    TopicFrame, Version,
};
use statistics_stream::decoder::StreamEvent;
use statistics_stream::{EventId, last_event_id};

use crate::stream::{content, decoded, encoded};

/// The most frames that the gateway receives. More would only be slower.
const FRAMES: usize = 16;

static TOPICS: LazyLock<Vec<Topic>> = LazyLock::new(|| Topic::all().collect());

/// Only ids as the gateway writes them are accepted. For each id the decision is sound: a client
/// that receives a patch or a snapshot then has the current state, a client that has the current
/// state receives nothing, and a client that is ahead waits.
///
/// # Panics
/// This does not hold.
pub fn check(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let header = &bytes[..end];
    let steps = bytes.get(end + 1..).unwrap_or_default();
    let id = std::str::from_utf8(header).ok().and_then(|text| {
        let id = text.parse::<EventId>().ok()?;
        assert_eq!(id.to_string(), text, "an id must be written as it was read");
        Some(id)
    });
    if let Ok(value) = HeaderValue::from_bytes(header) {
        let request =
            TestRequest::default().insert_header(("last-event-id", value)).to_http_request();
        assert_eq!(last_event_id(&request), id, "the id of a request");
    }
    let id = id.map(|id| id.version);
    let first = id.unwrap_or(Version { nonce: Nonce::new(1), tick: 0 });
    // The gateway begins a little before the id, so the id may be in the past, current or ahead.
    let first = Version { tick: first.tick.saturating_sub(3), ..first };
    let mut gateway = Statistics::new(first);
    let mut present = content(&gateway);
    // Every state that a client may have, and its content.
    let mut shown: Vec<(Statistics, Vec<TopicFrame>)> = Vec::new();
    for step in steps.chunks_exact(2).take(FRAMES) {
        let frame = frame(&gateway, step[0], step[1]);
        let other_term = frame.version.nonce != gateway.version().nonce;
        if other_term {
            // A nonce is random, so no term has the nonce of an earlier one.
            shown.retain(|(state, _)| state.version().nonce != frame.version.nonce);
        }
        assert_eq!(gateway.apply(&frame), Ok(()), "{frame:?}");
        let before = std::mem::replace(&mut present, content(&gateway));
        if !other_term {
            check_unnamed_topics(&frame, &before, &present);
        }
        for (state, buckets) in &shown {
            check_resumed(&gateway, &present, state, buckets);
        }
        // Of several states with one version, the upstream has the last one.
        shown.retain(|(state, _)| state.version() != gateway.version());
        shown.push((gateway.clone(), present.clone()));
    }
    if let Some(id) = id {
        check_decision(&gateway, id);
    }
}

/// The next frame of the gateway's upstream.
fn frame(gateway: &Statistics, kind: u8, what: u8) -> Frame {
    let held = gateway.version();
    let version = match kind >> 5 {
        0 => Version { nonce: Nonce::new(u64::from(what)), tick: u64::from(kind) },
        ahead => Version { tick: held.tick.saturating_add(u64::from(ahead - 1)), ..held },
    };
    let other_term = version.nonce != held.nonce;
    let snapshot = other_term || kind & 16 != 0;
    let version =
        if other_term { version } else { Version { tick: version.tick.max(held.tick), ..held } };
    let unit = TimeUnit::ALL[usize::from(kind & 15) % TimeUnit::ALL.len()];
    let topic = Topic::new(Metric::ALL[usize::from(what & 1)], unit);
    // Windows of a few buckets are soon full.
    let window = if snapshot { 1 + usize::from(what >> 1) % 4 } else { unit.window() };
    let start = |place: u8| {
        let time = BucketTime::from_unix_milliseconds(i64::from(place) * 40_000_000_000);
        unit.truncate(time.unwrap_or(BucketTime::MIN))
    };
    let bucket = |place: u8| Bucket { time: start(place), count: i64::from(what) };
    let buckets = vec![bucket(what >> 4), bucket(1 + (what >> 4))];
    let kind = if snapshot { FrameKind::Snapshot } else { FrameKind::Patch };
    Frame { kind, version, topics: vec![TopicFrame { topic, window, buckets }] }
}

/// A frame of the same term does not change topics that it does not name. [`check_resumed`] relies
/// on that.
fn check_unnamed_topics(frame: &Frame, before: &[TopicFrame], after: &[TopicFrame]) {
    for (before, after) in before.iter().zip(after) {
        let named = frame.topics.iter().any(|part| part.topic == after.topic);
        assert!(named || before == after, "{frame:?} changed {before:?} to {after:?}");
    }
}

/// A client with an earlier state gets the current one.
fn check_resumed(
    gateway: &Statistics,
    present: &[TopicFrame],
    held: &Statistics,
    shown: &[TopicFrame],
) {
    if held.version() == gateway.version() {
        return;
    }
    let frame = gateway.frame_since(Some(held.version()), &TOPICS);
    let named = frame.as_ref().map_or(&[][..], |frame| &frame.topics);
    let client = frame.as_ref().map(|frame| {
        let mut client = held.clone();
        assert_eq!(client.apply(frame), Ok(()), "{frame:?}");
        client
    });
    for (shown, present) in shown.iter().zip(present) {
        let topic = present.topic;
        let client = client.as_ref().filter(|_| named.iter().any(|part| part.topic == topic));
        match client {
            Some(client) => {
                assert_eq!(
                    client.snapshot(topic, usize::MAX).buckets,
                    present.buckets,
                    "of {topic}"
                );
            }
            None => assert_eq!(shown.buckets, present.buckets, "of {topic}, which is not sent"),
        }
    }
}

/// The decision for any id, also one that no gateway has sent.
fn check_decision(gateway: &Statistics, id: Version) {
    let present = gateway.version();
    let frame = gateway.frame_since(Some(id), &TOPICS);
    match gateway.resume(Some(id)) {
        Resume::Ahead => {
            assert!(id.nonce == present.nonce && id.tick > present.tick);
            assert_eq!(frame, None, "a client that is ahead must wait");
        }
        Resume::Patch(_) => {
            assert!(id.nonce == present.nonce && id.tick <= present.tick);
            assert!(frame.as_ref().is_none_or(|frame| frame.kind == FrameKind::Patch));
            assert!(
                id != present || frame.is_none(),
                "{id} is the current version, but gets {frame:?}"
            );
        }
        Resume::Snapshot => {
            assert!(id != present, "the current version needs no snapshot");
            let snapshot = frame.as_ref().is_some_and(|frame| frame.kind == FrameKind::Snapshot);
            assert!(snapshot, "{id} is of another term, or too old");
        }
    }
    if let Some(frame) = frame {
        assert_eq!(frame.version, present);
        let again = decoded(&encoded(&frame));
        assert_eq!(
            again,
            (vec![StreamEvent::Frame(frame)], None),
            "a written frame must be read again"
        );
    }
}
