//! Properties of the state machine that every hop runs. Whichever way the frames took, a receiver
//! that has applied them up to a version holds the publisher's state of that version.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use domain::{
    ApplyError, Bucket, BucketTime, Changes, Frame, FrameKind, Metric, Nonce, Resume, Statistics,
    TimeUnit, Topic, TopicFrame, Version,
};
use proptest::prelude::*;

type Change = (Metric, BucketTime, i64);

/// Times cluster, so that buckets are hit repeatedly, and spread far enough to overflow the windows
/// of years, quarters and milliseconds.
fn time() -> impl Strategy<Value = BucketTime> {
    let milliseconds = prop_oneof![
        0_i64..1_500,
        (0_i64..130).prop_map(|year| year * 31_556_952_000),
        (-40_i64..40).prop_map(|day| day * 86_400_000),
        BucketTime::MIN.unix_milliseconds()..=BucketTime::MAX.unix_milliseconds(),
    ];
    milliseconds.prop_map(|milliseconds| BucketTime::from_unix_milliseconds(milliseconds).unwrap())
}

fn change() -> impl Strategy<Value = Change> {
    (prop_oneof![Just(Metric::ItemCreation), Just(Metric::Transfers)], time(), -3_i64..4)
}

fn ticks() -> impl Strategy<Value = Vec<Vec<Change>>> {
    prop::collection::vec(prop::collection::vec(change(), 0..30), 1..25)
}

fn version(nonce: u64, tick: u64) -> Version {
    Version { nonce: Nonce::new(nonce), tick }
}

fn all_topics() -> Vec<Topic> {
    Topic::all().collect()
}

fn content(statistics: &Statistics) -> Vec<TopicFrame> {
    Topic::all().map(|topic| statistics.snapshot(topic, usize::MAX)).collect()
}

/// A simpler implementation of the windows: per topic, one map of every bucket that was ever
/// touched.
///
/// It drops the oldest bucket after each change, not at the end, because a full window ignores a
/// change older than its oldest bucket for good.
#[derive(Default)]
struct Model {
    topics: BTreeMap<usize, BTreeMap<BucketTime, i64>>,
}

impl Model {
    fn advance(&mut self, changes: &[Change]) {
        for &(metric, time, delta) in changes {
            for unit in TimeUnit::ALL {
                let buckets = self.topics.entry(Topic::new(metric, unit).index()).or_default();
                *buckets.entry(unit.truncate(time)).or_insert(0) += delta;
                while buckets.len() > unit.window() {
                    buckets.pop_first();
                }
            }
        }
    }

    fn content(&self) -> Vec<Vec<Bucket>> {
        let empty = BTreeMap::new();
        let buckets = |topic: Topic| self.topics.get(&topic.index()).unwrap_or(&empty);
        let list =
            |topic| buckets(topic).iter().map(|(&time, &count)| Bucket { time, count }).collect();
        Topic::all().map(list).collect()
    }
}

/// An event in a chain of hops that follow each other.
#[derive(Debug, Clone)]
enum Step {
    /// The publisher adds the next changes.
    Tick(Vec<Change>),
    /// Another publisher takes over: same counts, another nonce.
    Takeover,
    /// A hop gets a frame from the hop before it, and applies it this many times.
    Pull { hop: usize, times: usize },
    /// A hop restarts without any state.
    Restart { hop: usize },
}

const HOPS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(change(), 0..12).prop_map(Step::Tick),
        1 => Just(Step::Takeover),
        12 => (0..HOPS, 1_usize..3).prop_map(|(hop, times)| Step::Pull { hop, times }),
        1 => (0..HOPS).prop_map(|hop| Step::Restart { hop }),
    ]
}

/// One receiver, which is also the upstream of the next one.
#[derive(Default, Clone)]
struct Hop(Option<Statistics>);

impl Hop {
    fn pull(&mut self, upstream: Option<&Statistics>, times: usize) {
        let Some(upstream) = upstream else { return };
        let Some(frame) =
            upstream.frame_since(self.0.as_ref().map(Statistics::version), &all_topics())
        else {
            return;
        };
        for _ in 0..times {
            self.0.get_or_insert_with(|| Statistics::new(frame.version)).apply(&frame).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn a_window_holds_the_newest_buckets_ever_touched(ticks in ticks()) {
        let mut publisher = Statistics::new(version(1, 0));
        let mut model = Model::default();
        for changes in &ticks {
            publisher.advance(&changes.iter().copied().collect());
            model.advance(changes);
        }
        let held: Vec<_> = content(&publisher).into_iter().map(|part| part.buckets).collect();
        prop_assert_eq!(held, model.content());
        for topic in Topic::all() {
            prop_assert!(publisher.snapshot(topic, usize::MAX).buckets.len() <= topic.unit.window());
        }
    }

    /// Any number of ticks may be conflated into one patch, and any patch may be applied twice.
    #[test]
    fn any_split_into_patches_gives_the_same_state(
        ticks in ticks(),
        pulls in prop::collection::vec(any::<(bool, bool)>(), 25),
    ) {
        let mut publisher = Statistics::new(version(1, 0));
        let mut receiver = Hop::default();
        for (changes, (pull, twice)) in ticks.iter().zip(pulls) {
            publisher.advance(&changes.iter().copied().collect());
            if pull {
                receiver.pull(Some(&publisher), if twice { 2 } else { 1 });
                prop_assert_eq!(content(receiver.0.as_ref().unwrap()), content(&publisher));
            }
        }
        receiver.pull(Some(&publisher), 1);
        prop_assert_eq!(content(receiver.0.as_ref().unwrap()), content(&publisher));
    }

    /// A receiver that follows only the newest few buckets ends with the publisher's newest few.
    #[test]
    fn a_narrow_window_is_the_end_of_the_wide_one(ticks in ticks(), window in 1_usize..20) {
        let mut publisher = Statistics::new(version(1, 0));
        let first = |topic| publisher.snapshot(topic, window);
        let snapshot = Frame {
            kind: FrameKind::Snapshot,
            version: publisher.version(),
            topics: Topic::all().map(first).collect(),
        };
        let mut receiver = Statistics::new(version(9, 0));
        receiver.apply(&snapshot).unwrap();
        for changes in &ticks {
            let since = publisher.version().tick;
            publisher.advance(&changes.iter().copied().collect());
            let changed = |topic| publisher.changes_since(since, topic, window);
            let patch = Frame {
                kind: FrameKind::Patch,
                version: publisher.version(),
                topics: Topic::all().map(changed).collect(),
            };
            receiver.apply(&patch).unwrap();
            for topic in Topic::all() {
                prop_assert_eq!(receiver.snapshot(topic, window), publisher.snapshot(topic, window));
            }
        }
    }

    /// Hops restart, and terms change. At every moment, each hop holds the state that the publisher
    /// had at the hop's version.
    #[test]
    fn every_hop_of_a_chain_holds_the_state_of_its_version(steps in prop::collection::vec(step(), 1..80)) {
        let mut nonce = 1;
        let mut publisher = Statistics::new(version(nonce, 0));
        let mut hops = vec![Hop::default(); HOPS];
        let mut published = vec![(publisher.version(), content(&publisher))];
        for step in steps {
            match step {
                Step::Tick(changes) => publisher.advance(&changes.into_iter().collect()),
                Step::Takeover => {
                    nonce += 1;
                    let topics = content(&publisher);
                    let frame = Frame { kind: FrameKind::Snapshot, version: version(nonce, 0), topics };
                    publisher = Statistics::new(frame.version);
                    publisher.apply(&frame).unwrap();
                }
                Step::Pull { hop, times } => {
                    let upstream = if hop == 0 { Some(publisher.clone()) } else { hops[hop - 1].0.clone() };
                    hops[hop].pull(upstream.as_ref(), times);
                }
                Step::Restart { hop } => hops[hop] = Hop::default(),
            }
            published.push((publisher.version(), content(&publisher)));
            for held in hops.iter().filter_map(|hop| hop.0.as_ref()) {
                let (_, expected) =
                    published.iter().rev().find(|(version, _)| *version == held.version()).unwrap();
                prop_assert_eq!(&content(held), expected);
            }
        }
    }
}

fn patch(version: Version, topic: &str, window: usize, time: &str) -> Frame {
    let buckets = vec![Bucket { time: time.parse().unwrap(), count: 1 }];
    let topics = vec![TopicFrame { topic: topic.parse().unwrap(), window, buckets }];
    Frame { kind: FrameKind::Patch, version, topics }
}

#[test]
fn a_frame_that_does_not_fit_changes_nothing() {
    let mut state = Statistics::new(version(1, 5));
    let before = content(&state);
    let time = "2026-11-23T09:37:00Z";
    let refusals = [
        patch(version(1, 4), "transfers/minute", 1_440, time),
        patch(version(2, 6), "transfers/minute", 1_440, time),
        patch(version(1, 6), "transfers/minute", 1_441, time),
        patch(version(1, 6), "transfers/minute", 0, time),
        patch(version(1, 6), "transfers/hour", 2_160, time),
    ]
    .map(|frame| state.apply(&frame).unwrap_err());
    assert!(matches!(
        refusals,
        [
            ApplyError::Backward { .. },
            ApplyError::OtherTerm { .. },
            ApplyError::Window { .. },
            ApplyError::Window { .. },
            ApplyError::Misaligned { .. }
        ]
    ));
    assert_eq!((state.version(), content(&state)), (version(1, 5), before));
}

#[test]
fn the_version_of_a_receiver_decides_how_it_resumes() {
    let state = Statistics::new(version(1, 5));
    for (from, resume) in [
        (Some(version(1, 5)), Resume::Patch(5)),
        (Some(version(1, 4)), Resume::Snapshot),
        (Some(version(1, 6)), Resume::Ahead),
        (Some(version(2, 5)), Resume::Snapshot),
        (None, Resume::Snapshot),
    ] {
        assert_eq!(state.resume(from), resume, "{from:?}");
    }
}

#[test]
fn a_count_of_zero_stays() {
    let time: BucketTime = "2026-11-23T09:37:00.001Z".parse().unwrap();
    let mut state = Statistics::new(version(1, 0));
    state.advance(&Changes::from_iter([(Metric::Transfers, time, 1)]));
    state.advance(&Changes::from_iter([(Metric::Transfers, time, -1)]));
    let minute = state.snapshot("transfers/minute".parse().unwrap(), 10);
    assert_eq!(
        minute.buckets,
        [Bucket { time: "2026-11-23T09:37:00Z".parse().unwrap(), count: 0 }]
    );
}

/// One tick may touch more milliseconds than `Changes` keeps: it keeps all that the windows show.
#[test]
fn a_tick_that_overflows_a_window_leaves_the_newest_buckets() {
    let time = |number: i64| BucketTime::from_unix_milliseconds(number * 1_000).unwrap();
    let mut at_once = Statistics::new(version(1, 0));
    let mut one_by_one = Statistics::new(version(1, 0));
    // Downwards first, so that each change is older than a full window, and then upwards.
    let order = (5_000..10_000).rev().chain(0..12_000);
    let mut changes = Changes::default();
    for number in order {
        changes.add(Metric::Transfers, time(number), 1);
        one_by_one.advance(&Changes::from_iter([(Metric::Transfers, time(number), 1)]));
    }
    at_once.advance(&changes);
    let counts = |state: &Statistics, topic| state.snapshot(topic, usize::MAX).buckets;
    for topic in Topic::all() {
        assert_eq!(counts(&at_once, topic), counts(&one_by_one, topic), "{topic}");
    }
}

#[test]
fn a_receiver_at_the_maximum_tick_gets_no_frame() {
    let topic = Topic::new(Metric::Transfers, TimeUnit::Year);
    let buckets = vec![Bucket { time: BucketTime::MIN, count: 1 }];
    let topics = vec![TopicFrame { topic, window: 1, buckets }];
    let frame = Frame { kind: FrameKind::Snapshot, version: version(1, u64::MAX), topics };
    let mut statistics = Statistics::new(version(1, 0));
    statistics.apply(&frame).unwrap();
    assert_eq!(statistics.frame_since(Some(frame.version), &all_topics()), None);
}
