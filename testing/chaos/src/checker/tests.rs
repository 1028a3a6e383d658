//! Frames that the checker must accept, and frames that it must not.

use std::time::Duration;

use domain::TopicFrame;
use local_stack::stack::ServiceKind;

use super::*;

const MORNING: &str = "2026-03-01T09:00:00Z";

fn version(tick: u64) -> Version {
    Version { nonce: Nonce::new(1), tick }
}

/// A frame with this count of transfers in every unit, and no items.
fn frame(kind: FrameKind, tick: u64, count: i64) -> Frame {
    let part = |topic: Topic| {
        let time = topic.unit.truncate(MORNING.parse().unwrap());
        let counted = topic.metric == Metric::Transfers;
        let buckets = counted.then_some(domain::Bucket { time, count }).into_iter().collect();
        TopicFrame { topic, window: topic.unit.window(), buckets }
    };
    Frame { kind, version: version(tick), topics: Topic::all().map(part).collect() }
}

fn published(snapshot: &str, at: SystemTime) -> Publication {
    Publication {
        snapshot: snapshot.parse().unwrap(),
        at,
        by: ServiceKind::StatsNotifier.replica(1),
    }
}

/// Checks frames. Version 1 sees transaction 10, version 2 also 11; each adds one transfer.
fn check(frames: Vec<Frame>) -> Vec<String> {
    let now = SystemTime::now();
    let published = [(1, "11:11:"), (2, "12:12:")]
        .map(|(tick, snapshot)| (version(tick), published(snapshot, now)));
    let metric = Metric::Transfers;
    let time = MORNING.parse().unwrap();
    let made = now - Duration::from_secs(1);
    let changes = [10, 11].map(|transaction| Change { transaction, made, metric, time, delta: 1 });
    let changes = Changes { kept: changes.to_vec(), replaced: None };
    Checker::default().check(&published.into(), &changes, &[frames])
}

#[test]
fn counts_of_the_snapshot_are_accepted() {
    let right = vec![frame(FrameKind::Snapshot, 1, 1), frame(FrameKind::Patch, 2, 2)];
    assert_eq!(check(right), Vec::<String>::new());
}

#[test]
fn counts_of_another_snapshot_are_violations() {
    for (first, second) in [(2, 2), (0, 2), (1, 1), (1, 3)] {
        let wrong = vec![frame(FrameKind::Snapshot, 1, first), frame(FrameKind::Patch, 2, second)];
        assert!(!check(wrong).is_empty(), "{first}, then {second}");
    }
}

#[test]
fn a_patch_must_name_every_bucket_that_changed() {
    let mut silent = frame(FrameKind::Patch, 2, 2);
    silent.topics.clear();
    assert!(!check(vec![frame(FrameKind::Snapshot, 1, 1), silent]).is_empty());
}

#[test]
fn a_snapshot_must_have_every_topic_with_its_whole_window() {
    let mut without = frame(FrameKind::Snapshot, 1, 1);
    without.topics.retain(|part| part.topic.unit != TimeUnit::Week);
    assert!(!check(vec![without]).is_empty());
    let mut narrow = frame(FrameKind::Snapshot, 1, 1);
    narrow.topics[0].window = 1;
    assert!(!check(vec![narrow]).is_empty());
}

#[test]
fn a_version_must_have_been_published_and_a_patch_needs_a_snapshot() {
    assert!(!check(vec![frame(FrameKind::Snapshot, 3, 2)]).is_empty());
    assert!(!check(vec![frame(FrameKind::Patch, 2, 2)]).is_empty());
}

/// Checks a frame of term 1 with 2 transfers, then one of term 2 with `count`. In between, a
/// failover has kept the first transfer only.
fn check_failover(lost: Option<ReplacedHistory>, count: i64) -> Vec<String> {
    let now = SystemTime::now();
    let second = Version { nonce: Nonce::new(2), tick: 1 };
    let published = [(version(1), published("12:12:", now)), (second, published("11:11:", now))];
    let shown = Frame { version: second, ..frame(FrameKind::Snapshot, 1, count) };
    let changes = Changes { kept: vec![transfer(10, now)], replaced: lost };
    let frames = vec![frame(FrameKind::Snapshot, 1, 2), shown];
    Checker::default().check(&published.into(), &changes, &[frames])
}

/// A transfer that this transaction added.
fn transfer(transaction: u64, now: SystemTime) -> Change {
    let made = now - Duration::from_secs(1);
    let time = MORNING.parse().unwrap();
    Change { transaction, made, metric: Metric::Transfers, time, delta: 1 }
}

#[test]
fn a_count_may_fall_only_by_what_a_failover_has_lost() {
    let now = SystemTime::now();
    let replaced = || ReplacedHistory {
        terms: [Nonce::new(1)].into(),
        changes: vec![transfer(10, now), transfer(11, now)],
    };
    assert_eq!(check_failover(Some(replaced()), 1), Vec::<String>::new());
    assert!(!check_failover(Some(replaced()), 2).is_empty(), "a lost transfer is shown");
    assert!(!check_failover(Some(replaced()), 0).is_empty(), "too much is taken back");
    assert!(!check_failover(None, 1).is_empty(), "nothing was lost, but the count falls");
}

/// After a crash, Postgres uses the ids of transactions that changed nothing again.
#[test]
fn a_version_does_not_show_a_change_that_was_made_after_its_publication() {
    let now = SystemTime::now();
    let published = published("11:11:", now);
    assert!(published.sees(10, now - Duration::from_secs(1)));
    assert!(!published.sees(10, now + Duration::from_secs(1)));
}
