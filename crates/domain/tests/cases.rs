//! Writes test cases for clients in other languages: sequences of frames, and the state after each.
//! The page's TypeScript state machine runs the same file.

#![allow(clippy::unwrap_used, reason = "tests")]

use domain::{
    ApplyError, Bucket, BucketTime, Changes, Frame, FrameKind, Metric, Nonce, Statistics, TimeUnit,
    Topic, TopicFrame, Version,
};
use serde_json::{Value, json};

/// The frames that one receiver gets, and its state after each.
struct Case {
    name: &'static str,
    /// The term of the next frames.
    nonce: u64,
    state: Statistics,
    steps: Vec<Value>,
}

impl Case {
    fn new(name: &'static str) -> Self {
        // A receiver without a state is in no term, so only a snapshot fits.
        Self { name, nonce: 1, state: Statistics::new(version(0, 0)), steps: Vec::new() }
    }

    fn term(self, nonce: u64) -> Self {
        Self { nonce, ..self }
    }

    fn snapshot(self, tick: u64, topics: Vec<TopicFrame>) -> Self {
        let version = version(self.nonce, tick);
        self.apply(&Frame { kind: FrameKind::Snapshot, version, topics })
    }

    fn patch(self, tick: u64, topics: Vec<TopicFrame>) -> Self {
        let version = version(self.nonce, tick);
        self.apply(&Frame { kind: FrameKind::Patch, version, topics })
    }

    fn apply(mut self, frame: &Frame) -> Self {
        let refused = match self.state.apply(frame) {
            Ok(()) => Value::Null,
            Err(ApplyError::Backward { .. }) => json!("backward"),
            Err(ApplyError::OtherTerm { .. }) => json!("other term"),
            Err(error) => panic!("no publisher sends such a frame: {error}"),
        };
        let windows = Topic::all().map(|topic| self.state.snapshot(topic, usize::MAX));
        let windows = windows.filter(|window| !window.buckets.is_empty());
        let windows =
            windows.map(|window| json!({ "topic": window.topic, "buckets": window.buckets }));
        self.steps.push(json!({
            "event": frame.kind.as_str(),
            "id": frame.version.to_string(),
            "data": frame.topics,
            "refused": refused,
            "state": windows.collect::<Vec<_>>(),
        }));
        self
    }
}

fn version(nonce: u64, tick: u64) -> Version {
    Version { nonce: Nonce::new(nonce), tick }
}

fn part(topic: &str, window: usize, buckets: &[(&str, i64)]) -> TopicFrame {
    let bucket = |&(time, count): &(&str, i64)| Bucket { time: time.parse().unwrap(), count };
    TopicFrame {
        topic: topic.parse().unwrap(),
        window,
        buckets: buckets.iter().map(bucket).collect(),
    }
}

/// Days of November 2026, by their number.
fn days(topic: &str, window: usize, days: &[(u8, i64)]) -> TopicFrame {
    let days: Vec<_> =
        days.iter().map(|(day, count)| (format!("2026-11-{day:02}T00:00:00Z"), *count)).collect();
    let days: Vec<_> = days.iter().map(|(day, count)| (day.as_str(), *count)).collect();
    part(topic, window, &days)
}

fn hand_written() -> Vec<Case> {
    let transfers = |window, of: &[(u8, i64)]| vec![days("transfers/day", window, of)];
    let creations = |of: &[(u8, i64)]| vec![days("item-creation/day", 400, of)];
    let both = |of: &[(u8, i64)]| [transfers(400, of), creations(&[(1, 9)])].concat();
    let years = |of: &[(&str, i64)]| part("transfers/year", 100, of);
    let milliseconds = |of: &[(&str, i64)]| part("transfers/millisecond", 1_000, of);
    vec![
        Case::new("a snapshot, then patches")
            .snapshot(5, transfers(400, &[(1, 3), (2, 4)]))
            .patch(6, transfers(400, &[(2, 5)]))
            .patch(9, transfers(400, &[(1, 2), (3, 1)])),
        Case::new("a frame applied twice is harmless")
            .snapshot(5, transfers(400, &[(1, 3)]))
            .patch(6, transfers(400, &[(1, 4), (2, 1)]))
            .patch(6, transfers(400, &[(1, 4), (2, 1)])),
        Case::new("a count of zero stays")
            .snapshot(0, transfers(400, &[(1, 1)]))
            .patch(1, transfers(400, &[(1, 0), (2, -1)])),
        Case::new("a full window drops its oldest bucket")
            .snapshot(0, transfers(3, &[(1, 1), (2, 2), (3, 3)]))
            .patch(1, transfers(3, &[(4, 4), (6, 6)]))
            .patch(2, transfers(3, &[(5, 5)])),
        Case::new("a time older than the oldest of a full window is ignored")
            .snapshot(0, transfers(2, &[(5, 5), (6, 6)]))
            .patch(1, transfers(2, &[(4, 4)]))
            .patch(2, transfers(2, &[(4, 4), (7, 7)])),
        Case::new("a window with room accepts an older time")
            .snapshot(0, transfers(3, &[(5, 5)]))
            .patch(1, transfers(3, &[(4, 4)])),
        Case::new("a patch names only what changed")
            .snapshot(0, both(&[(1, 1)]))
            .patch(1, transfers(400, &[(2, 2)]))
            .patch(2, creations(&[(2, 8)])),
        Case::new("a snapshot replaces only the topics that it names")
            .snapshot(0, both(&[(1, 1), (2, 2)]))
            .snapshot(4, transfers(400, &[(2, 3)])),
        Case::new("a snapshot may make a window narrower or wider")
            .snapshot(0, transfers(3, &[(1, 1), (2, 2), (3, 3)]))
            .snapshot(1, transfers(2, &[(2, 2), (3, 3)]))
            .patch(2, transfers(2, &[(4, 4)]))
            .snapshot(3, transfers(4, &[(1, 1), (2, 2), (3, 3), (4, 4)]))
            .patch(4, transfers(4, &[(5, 5)])),
        Case::new("a snapshot of another term clears all topics")
            .snapshot(7, both(&[(1, 1)]))
            .term(2)
            .snapshot(0, transfers(400, &[(1, 1)]))
            .patch(1, creations(&[(3, 1)])),
        Case::new("a frame that does not fit changes nothing")
            .patch(4, transfers(400, &[(1, 1)]))
            .snapshot(5, transfers(400, &[(1, 1)]))
            .patch(4, transfers(400, &[(1, 9)]))
            .snapshot(4, transfers(400, &[(1, 9)]))
            .term(2)
            .patch(6, transfers(400, &[(1, 9)]))
            .term(1)
            .patch(6, transfers(400, &[(1, 2)])),
        Case::new("times with and without decimals, before 1970, and at both ends of the range")
            .snapshot(
                0,
                vec![
                    milliseconds(&[("1969-12-31T23:59:59.999Z", 1), ("2026-11-23T09:37:00Z", 2)]),
                    years(&[("0001-01-01T00:00:00Z", 1), ("9999-01-01T00:00:00Z", 1)]),
                ],
            )
            .patch(
                1,
                vec![
                    milliseconds(&[("2026-11-23T09:37:00.007Z", 3)]),
                    years(&[("2026-01-01T00:00:00Z", 5)]),
                ],
            ),
    ]
}

/// A publisher counts random events, and another one takes over now and then. A receiver follows
/// the newest few buckets. It misses some versions and gets others twice.
fn random() -> Case {
    const WINDOW: usize = 6;
    // A fixed pseudo-random sequence (Knuth's MMIX), so that the file stays the same.
    let mut last: u64 = 2_026;
    let mut draw = |below: u64| {
        last = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (last >> 33) % below
    };
    let topics = [
        Topic::new(Metric::ItemCreation, TimeUnit::Day),
        Topic::new(Metric::Transfers, TimeUnit::Day),
        Topic::new(Metric::Transfers, TimeUnit::Quarter),
    ];
    let mut publisher = Statistics::new(version(1, 0));
    let mut case = Case::new("random events");
    let mut held: Option<Version> = None;
    for _ in 0..120 {
        let events = (0..draw(4)).map(|_| {
            let metric = Metric::ALL[usize::try_from(draw(2)).unwrap()];
            let day = i64::try_from(20_000 + draw(14) * draw(30)).unwrap();
            let time = BucketTime::from_unix_milliseconds(day * 86_400_000 + 5).unwrap();
            (metric, time, i64::try_from(draw(7)).unwrap() - 2)
        });
        let events: Changes = events.collect::<Vec<_>>().into_iter().collect();
        publisher.advance(&events);
        if draw(25) == 0 {
            let content = Topic::all().map(|topic| publisher.snapshot(topic, usize::MAX)).collect();
            let next = version(draw(1 << 30) + 2, 0);
            publisher = Statistics::new(next);
            let takeover = Frame { kind: FrameKind::Snapshot, version: next, topics: content };
            publisher.apply(&takeover).unwrap();
        }
        if draw(3) == 0 {
            continue;
        }
        let patched = held.filter(|held| held.nonce == publisher.version().nonce && draw(12) != 0);
        let parts = topics.into_iter().map(|topic| match patched {
            Some(held) => publisher.changes_since(held.tick, topic, WINDOW),
            None => publisher.snapshot(topic, WINDOW),
        });
        let parts = parts.filter(|part| patched.is_none() || !part.buckets.is_empty());
        let kind = if patched.is_some() { FrameKind::Patch } else { FrameKind::Snapshot };
        let frame = Frame { kind, version: publisher.version(), topics: parts.collect() };
        if frame.topics.is_empty() {
            continue;
        }
        for _ in 0..=draw(2) {
            case = case.apply(&frame);
        }
        held = Some(publisher.version());
    }
    case
}

#[test]
fn the_case_file_matches_this_state_machine() {
    let cases = hand_written().into_iter().chain([random()]);
    let cases = cases.map(|case| json!({ "name": case.name, "steps": case.steps }).to_string());
    let text = format!("[\n{}\n]\n", cases.collect::<Vec<_>>().join(",\n"));
    expect_test::expect_file!["cases/statistics.json"].assert_eq(&text);
}
