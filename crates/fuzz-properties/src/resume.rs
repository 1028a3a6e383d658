//! `Last-Event-ID`: what a gateway makes of it, and how it brings whoever sent it to the present state.
//!
//! The first line of the bytes is the header. Each two bytes after it are a frame that the gateway gets.

use actix_web::http::header::HeaderValue;
use actix_web::test::TestRequest;
use domain::{
    Bucket, BucketTime, Frame, FrameKind, Metric, Nonce, Resume, Statistics, TimeUnit, Topic, TopicFrame,
    Version,
};
use sse_gateway::request::last_event_id;
use statistics_stream::decoder::Told;

use crate::stream::{content, decoded, encoded};

/// How many frames the gateway gets at most; more would only be slower.
const FRAMES: usize = 24;

/// Only what the gateway writes is an id. Whichever id is sent, the decision is sound: who is sent a patch or a snapshot
/// then holds the present state, nobody who has the present state is sent anything, and who is ahead waits.
///
/// # Panics
/// Where this does not hold.
pub fn check(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, steps) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let id = std::str::from_utf8(header).ok().and_then(|text| {
        let id = text.parse::<Version>().ok()?;
        assert_eq!(id.to_string(), text, "only what is written is read");
        Some(id)
    });
    if let Ok(value) = HeaderValue::from_bytes(header) {
        let request = TestRequest::default().insert_header(("last-event-id", value)).to_http_request();
        assert_eq!(last_event_id(&request), id, "what is read of a request");
    }
    let first = id.unwrap_or(Version { nonce: Nonce::new(1), tick: 0 });
    // From a little before the id on: so the id is of the past, the present or the future.
    let first = Version { tick: first.tick.saturating_sub(3), ..first };
    let mut gateway = Statistics::new(first);
    // Every state that a client may have been shown.
    let mut shown: Vec<Statistics> = Vec::new();
    for step in steps.chunks_exact(2).take(FRAMES) {
        let frame = frame(&gateway, step[0], step[1]);
        if frame.version.nonce != gateway.version().nonce {
            // A nonce is drawn at random, so no term has that of a term before it.
            shown.retain(|state| state.version().nonce != frame.version.nonce);
        }
        assert_eq!(gateway.apply(&frame), Ok(()), "{frame:?}");
        for state in &shown {
            brought(&gateway, state);
        }
        // Of the states of one version, the last is what the upstream has.
        shown.retain(|state| state.version() != gateway.version());
        shown.push(gateway.clone());
    }
    if let Some(id) = id {
        decided(&gateway, id);
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
    let version = if other_term { version } else { Version { tick: version.tick.max(held.tick), ..held } };
    let unit = TimeUnit::ALL[usize::from(kind & 15) % TimeUnit::ALL.len()];
    let topic = Topic::new(Metric::ALL[usize::from(what & 1)], unit);
    // Windows of a few buckets overflow soon.
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

/// A client that holds a state which was shown is brought to the present one.
fn brought(gateway: &Statistics, held: &Statistics) {
    let topics: Vec<Topic> = Topic::all().collect();
    let mut client = held.clone();
    if held.version() == gateway.version() {
        return;
    }
    let frame = gateway.frame_since(Some(held.version()), &topics);
    if let Some(frame) = frame {
        assert_eq!(client.apply(&frame), Ok(()), "{frame:?}");
    }
    for (held, shown) in content(&client).into_iter().zip(content(gateway)) {
        assert_eq!(held.buckets, shown.buckets, "of {}", shown.topic);
    }
}

/// What is decided on an id, whoever made it up.
fn decided(gateway: &Statistics, id: Version) {
    let topics: Vec<Topic> = Topic::all().collect();
    let (present, resume) = (gateway.version(), gateway.resume(id));
    let frame = gateway.frame_since(Some(id), &topics);
    match resume {
        Resume::Ahead => {
            assert!(id.nonce == present.nonce && id.tick > present.tick);
            assert_eq!(frame, None, "who is ahead waits");
        }
        Resume::Patch => {
            assert!(id.nonce == present.nonce && id.tick <= present.tick);
            assert!(frame.as_ref().is_none_or(|frame| frame.kind == FrameKind::Patch));
            assert!(id != present || frame.is_none(), "{id} is the present version, but is sent {frame:?}");
        }
        Resume::Snapshot => {
            assert!(id != present, "the present version needs no snapshot");
            let snapshot = frame.as_ref().is_some_and(|frame| frame.kind == FrameKind::Snapshot);
            assert!(snapshot, "{id} is of another term, or too old");
        }
    }
    if let Some(frame) = frame {
        assert_eq!(frame.version, present);
        let (told, error) = decoded(&[encoded(&frame).as_bytes()], usize::MAX);
        assert_eq!((told, error), (vec![Told::Frame(frame)], None), "what was written is read again");
    }
}
