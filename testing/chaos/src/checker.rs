//! What each shown version must be, recomputed from an audit of every row that was written.
//!
//! The leader's log tells which snapshot of the database each version shows, before anybody is shown it. The audit,
//! written by row triggers of its own, tells which transaction changed which count. So a version must show the sum of
//! the audit rows whose transactions its snapshot sees: computed here without the change log, the rollups or the state
//! machine of the services.
//!
//! Checked is from one rest to the next: at rest nobody writes, and everybody shows everything that was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use domain::{BucketTime, Frame, FrameKind, Metric, Nonce, TimeUnit, Topic, Version};
use local_stack::stack::Instance;
use stats_notifier::snapshot::Snapshot;

/// A bucket: the index of its topic, and its start.
type Key = (usize, BucketTime);

/// What was shown of a term, by tick: to which subscriber, and in which frame.
type Ticks<'a> = BTreeMap<u64, Vec<(usize, &'a Frame)>>;

/// One committed change of a count.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// Its transaction.
    pub transaction: u64,
    /// When it was made, by the clock of this machine.
    pub made: SystemTime,
    /// What of.
    pub metric: Metric,
    /// At which time it counts.
    pub time: BucketTime,
    /// How much.
    pub delta: i64,
}

/// What a leader said that a version shows.
#[derive(Debug, Clone)]
pub struct Published {
    /// What it sees.
    pub snapshot: Snapshot,
    /// When it was said, or a little later.
    pub at: SystemTime,
    /// Who said so.
    pub by: Instance,
}

impl Published {
    /// Whether it sees a transaction that made a change at this time. What was written after a version was published it does
    /// not, whatever the number: a server that crashes forgets the numbers of transactions that had changed nothing, and
    /// gives them away again.
    #[must_use]
    pub fn sees(&self, transaction: u64, made: SystemTime) -> bool {
        made <= self.at && self.snapshot.sees(transaction)
    }
}

/// One subscriber's windows of all topics, as anybody could keep them who reads the documentation of the streams.
#[derive(Debug, Clone)]
struct Mirror {
    version: Option<Version>,
    /// By the index of the topic: how many buckets its window holds at most, and these.
    windows: Vec<(usize, BTreeMap<BucketTime, i64>)>,
}

impl Default for Mirror {
    fn default() -> Self {
        let windows = Topic::all().map(|topic| (topic.unit.window(), BTreeMap::new())).collect();
        Self { version: None, windows }
    }
}

impl Mirror {
    /// Takes over a frame, and returns the buckets that it names. A topic that a snapshot does not name has none.
    fn apply(&mut self, frame: &Frame) -> Vec<Key> {
        let mut named = Vec::new();
        if frame.kind == FrameKind::Snapshot {
            self.windows.iter_mut().for_each(|(_, window)| window.clear());
        }
        for part in &frame.topics {
            let topic = part.topic.index();
            let (bound, window) = &mut self.windows[topic];
            for bucket in &part.buckets {
                window.insert(bucket.time, bucket.count);
                named.push((topic, bucket.time));
            }
            while window.len() > *bound {
                window.pop_first();
            }
        }
        self.version = Some(frame.version);
        named
    }

    /// Whether the window reaches back to the bucket.
    fn reaches(&self, (topic, time): Key) -> bool {
        let (bound, window) = &self.windows[topic];
        window.len() < *bound || window.first_key_value().is_none_or(|(oldest, _)| time >= *oldest)
    }

    fn get(&self, (topic, time): Key) -> Option<i64> {
        self.windows[topic].1.get(&time).copied()
    }
}

/// Counts at rest, and those that a version adds to them.
#[derive(Debug, Default)]
struct Counts {
    base: BTreeMap<Key, i64>,
    added: BTreeMap<Key, i64>,
}

impl Counts {
    fn get(&self, key: Key) -> i64 {
        let get = |counts: &BTreeMap<Key, i64>| counts.get(&key).copied().unwrap_or(0);
        get(&self.base) + get(&self.added)
    }

    /// All buckets of a topic from a time on that have a count.
    fn since(&self, topic: usize, oldest: BucketTime) -> BTreeSet<Key> {
        let range = (topic, oldest)..=(topic, BucketTime::MAX);
        let keys = self.base.range(range.clone()).chain(self.added.range(range)).map(|(key, _)| *key);
        keys.filter(|key| self.get(*key) != 0).collect()
    }
}

/// The buckets that a change touches.
fn buckets(change: &Change) -> impl Iterator<Item = Key> {
    let (metric, time) = (change.metric, change.time);
    TimeUnit::ALL.into_iter().map(move |unit| (Topic::new(metric, unit).index(), unit.truncate(time)))
}

/// What was checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checked {
    /// Versions, of those that somebody was shown.
    pub versions: usize,
    /// Frames, of all subscribers.
    pub frames: usize,
    /// Buckets compared.
    pub buckets: usize,
}

/// Knows all counts at the last rest.
#[derive(Debug, Default)]
pub struct Checker {
    counts: Counts,
    /// What each subscriber had then, by its place.
    mirrors: Vec<Mirror>,
    /// The transactions of all changes before it, and when they made the last.
    transactions: BTreeMap<u64, SystemTime>,
    /// Everything that was checked until now.
    pub checked: Checked,
}

/// The most violations that are put into words.
const MOST: usize = 20;

impl Checker {
    /// Checks all frames since the last rest, and makes this one the last. `frames` are those of each subscriber, in
    /// the same order each time. Returns what is wrong, in words.
    pub fn check(
        &mut self,
        published: &HashMap<Version, Published>,
        changes: &[Change],
        frames: &[Vec<Frame>],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        self.mirrors.resize_with(frames.len(), Mirror::default);
        let mut terms: HashMap<Nonce, Ticks<'_>> = HashMap::new();
        for (subscriber, frames) in frames.iter().enumerate() {
            for frame in frames {
                let Version { nonce, tick } = frame.version;
                terms.entry(nonce).or_default().entry(tick).or_default().push((subscriber, frame));
            }
        }
        let mut mirrors = self.mirrors.clone();
        for (nonce, ticks) in &terms {
            let after = self.term(*nonce, ticks, published, changes, &mut wrong);
            for (subscriber, mirror) in after {
                // Of several terms, the last one that it was shown.
                if frames[subscriber].last().map(|frame| frame.version) == mirror.version {
                    mirrors[subscriber] = mirror;
                }
            }
        }
        self.mirrors = mirrors;
        for change in changes {
            for key in buckets(change) {
                *self.counts.base.entry(key).or_insert(0) += change.delta;
            }
            self.transactions.insert(change.transaction, change.made);
        }
        self.counts.added.clear();
        for mirror in &self.mirrors {
            compare_all(mirror, &self.counts, &mut self.checked, &mut wrong);
        }
        wrong
    }

    /// Checks all that was shown of one term, tick by tick. Returns what its subscribers had at its end.
    fn term(
        &mut self,
        nonce: Nonce,
        ticks: &Ticks<'_>,
        published: &HashMap<Version, Published>,
        changes: &[Change],
        wrong: &mut Vec<String>,
    ) -> HashMap<usize, Mirror> {
        self.counts.added.clear();
        let mut mirrors: HashMap<usize, Mirror> = HashMap::new();
        let mut unseen: Vec<&Change> = changes.iter().collect();
        // The buckets that each tick touched, for those who skip some.
        let mut touched: BTreeMap<u64, Vec<Key>> = BTreeMap::new();
        for (tick, shown) in ticks {
            let version = Version { nonce, tick: *tick };
            let Some(publication) = published.get(&version) else {
                say(wrong, || format!("{version} was shown, but never published"));
                continue;
            };
            let mut at_rest = self.transactions.range(publication.snapshot.xmin()..);
            if at_rest.any(|(transaction, made)| !publication.sees(*transaction, *made)) {
                say(wrong, || format!("{version} was shown, but is older than what all had been shown"));
                continue;
            }
            self.checked.versions += 1;
            let counts = &mut self.counts.added;
            unseen.retain(|change| {
                let sees = publication.sees(change.transaction, change.made);
                if sees {
                    for key in buckets(change) {
                        *counts.entry(key).or_insert(0) += change.delta;
                        touched.entry(*tick).or_default().push(key);
                    }
                }
                !sees
            });
            for (subscriber, frame) in shown {
                self.checked.frames += 1;
                let mirror = mirrors.entry(*subscriber).or_insert_with(|| self.mirrors[*subscriber].clone());
                let before = mirror.version.filter(|before| before.nonce == nonce);
                for part in frame.topics.iter().filter(|part| part.window != part.topic.unit.window()) {
                    say(wrong, || format!("{version}: {} has a window of {}", part.topic, part.window));
                }
                let mut keys = mirror.apply(frame);
                if frame.kind == FrameKind::Snapshot {
                    compare_all(mirror, &self.counts, &mut self.checked, wrong);
                    continue;
                }
                let Some(before) = before else {
                    say(wrong, || format!("{version} was a patch, of nothing that was shown before"));
                    continue;
                };
                let since = (before.tick.min(*tick) + 1).min(*tick)..=*tick;
                keys.extend(touched.range(since).flat_map(|(_, keys)| keys));
                compare(mirror, keys, &self.counts, &mut self.checked, wrong);
            }
        }
        mirrors
    }

    /// All counts at the last rest that are not zero, as the topic's name and the bucket's start.
    pub fn counts(&self) -> impl Iterator<Item = (String, BucketTime, i64)> + '_ {
        let names: Vec<String> = Topic::all().map(|topic| topic.to_string()).collect();
        let counts = self.counts.base.iter().filter(|(_, count)| **count != 0);
        counts.map(move |((topic, time), count)| (names[*topic].clone(), *time, *count))
    }
}

fn compare(
    mirror: &Mirror,
    keys: impl IntoIterator<Item = Key>,
    counts: &Counts,
    checked: &mut Checked,
    wrong: &mut Vec<String>,
) {
    for key in keys {
        checked.buckets += 1;
        let (shown, expected) = (mirror.get(key), counts.get(key));
        if shown.unwrap_or(0) == expected || (shown.is_none() && !mirror.reaches(key)) {
            continue;
        }
        say(wrong, || {
            let (topic, time) = (Topic::all().nth(key.0), key.1);
            let version = mirror.version.map(|version| version.to_string()).unwrap_or_default();
            let topic = topic.map(|topic| topic.to_string()).unwrap_or_default();
            format!("{version}: {topic} at {time} shows {shown:?}, but the snapshot has {expected}")
        });
    }
}

/// Compares everything that a subscriber has, and looks for what it lacks.
fn compare_all(mirror: &Mirror, counts: &Counts, checked: &mut Checked, wrong: &mut Vec<String>) {
    for (topic, (bound, window)) in mirror.windows.iter().enumerate() {
        let full = window.len() >= *bound;
        let oldest = window.first_key_value().filter(|_| full).map_or(BucketTime::MIN, |(oldest, _)| *oldest);
        let mut keys = counts.since(topic, oldest);
        keys.extend(window.keys().map(|time| (topic, *time)));
        compare(mirror, keys, counts, checked, wrong);
    }
}

fn say(wrong: &mut Vec<String>, words: impl FnOnce() -> String) {
    if wrong.len() < MOST {
        wrong.push(words());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::TopicFrame;
    use local_stack::stack::Part;

    use super::*;

    const MORNING: &str = "2026-03-01T09:00:00Z";

    fn version(tick: u64) -> Version {
        Version { nonce: Nonce::new(1), tick }
    }

    /// What shows this count of transfers, in every unit; a snapshot says that there are no items.
    fn frame(kind: FrameKind, tick: u64, count: i64) -> Frame {
        let part = |topic: Topic| {
            let time = topic.unit.truncate(MORNING.parse().unwrap());
            let counted = topic.metric == Metric::Transfers;
            let buckets = counted.then_some(domain::Bucket { time, count }).into_iter().collect();
            TopicFrame { topic, window: topic.unit.window(), buckets }
        };
        Frame { kind, version: version(tick), topics: Topic::all().map(part).collect() }
    }

    fn published(snapshot: &str, at: SystemTime) -> Published {
        Published { snapshot: snapshot.parse().unwrap(), at, by: Part::StatsNotifier.replica(1) }
    }

    /// Transaction 10 is seen by the first version, 11 by the second alone, and each adds one.
    fn check(frames: Vec<Frame>) -> Vec<String> {
        let now = SystemTime::now();
        let published =
            [(1, "11:11:"), (2, "12:12:")].map(|(tick, snapshot)| (version(tick), published(snapshot, now)));
        let (metric, time) = (Metric::Transfers, MORNING.parse().unwrap());
        let made = now - Duration::from_secs(1);
        let changes = [10, 11].map(|transaction| Change { transaction, made, metric, time, delta: 1 });
        Checker::default().check(&published.into(), &changes, &[frames])
    }

    #[test]
    fn what_a_snapshot_sees_is_right() {
        let right = vec![frame(FrameKind::Snapshot, 1, 1), frame(FrameKind::Patch, 2, 2)];
        assert_eq!(check(right), Vec::<String>::new());
    }

    #[test]
    fn what_it_does_not_see_is_wrong() {
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
    fn every_topic_must_be_there_with_its_whole_window() {
        let mut without = frame(FrameKind::Snapshot, 1, 1);
        without.topics.retain(|part| part.topic.unit != TimeUnit::Week);
        assert!(!check(vec![without]).is_empty());
        let mut narrow = frame(FrameKind::Snapshot, 1, 1);
        narrow.topics[0].window = 1;
        assert!(!check(vec![narrow]).is_empty());
    }

    #[test]
    fn versions_must_have_been_published_and_patches_need_a_snapshot() {
        assert!(!check(vec![frame(FrameKind::Snapshot, 3, 2)]).is_empty());
        assert!(!check(vec![frame(FrameKind::Patch, 2, 2)]).is_empty());
    }

    /// A server that crashed may give a number away again, of a transaction that had changed nothing.
    #[test]
    fn what_was_written_later_is_not_seen() {
        let now = SystemTime::now();
        let published = published("11:11:", now);
        assert!(published.sees(10, now - Duration::from_secs(1)));
        assert!(!published.sees(10, now + Duration::from_secs(1)));
    }
}
