//! Holds the invariant "one version is one snapshot": all counts that are shown at one version are
//! the counts of one database snapshot.
//!
//! How: before a leader publishes a version, it logs the snapshot that the version shows
//! ([`Publication`]). Row triggers of the tests write an audit: for each change of a count, the id
//! of its transaction ([`Change`]). So at a version, every count must be the sum of the audited
//! changes whose transactions the version's snapshot sees. The checker computes these sums itself,
//! without the change log, the rollups or `domain::Statistics`, and compares them with what each
//! subscriber shows after each frame.
//!
//! A check covers the time from one pause to the next. At a pause no producer writes, and every
//! subscriber shows every change.

mod changes;
mod mirror;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use domain::{BucketTime, Frame, FrameKind, Metric, Nonce, TimeUnit, Topic, Version};
use local_stack::stack::Instance;
use stats_notifier::snapshot::Snapshot;

pub(crate) use self::changes::{Changes, ReplacedHistory};
use self::mirror::{Key, Mirror};

/// The frames of one term, by tick, each with the index of the subscriber that received it.
type Ticks<'a> = BTreeMap<u64, Vec<(usize, &'a Frame)>>;

/// A committed change of a count: a row of the audit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    /// The id of its transaction.
    pub(crate) transaction: u64,
    /// When the row was written, by the clock of this machine.
    pub(crate) made: SystemTime,
    pub(crate) metric: Metric,
    /// The time of the event.
    pub(crate) time: BucketTime,
    /// 1 for a new row, -1 for a deleted one.
    pub(crate) delta: i64,
}

/// What a leader has logged about a version.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// The snapshot that the version shows.
    pub(crate) snapshot: Snapshot,
    /// When the log line was read, which is a little later than it was written.
    pub(crate) at: SystemTime,
    /// The leader.
    pub(crate) by: Instance,
}

impl Publication {
    /// Whether the version shows a change that this transaction made at this time. Changes after
    /// its publication are not shown, regardless of the transaction's id: a server that crashes
    /// forgets the ids of transactions that changed nothing, and uses them again.
    pub(crate) fn sees(&self, transaction: u64, made: SystemTime) -> bool {
        made <= self.at && self.snapshot.sees(transaction)
    }
}

/// The expected counts of a version: those of the last pause, and what was added since.
#[derive(Debug, Default)]
struct ExpectedCounts {
    base: BTreeMap<Key, i64>,
    added: BTreeMap<Key, i64>,
}

impl ExpectedCounts {
    fn get(&self, key: Key) -> i64 {
        let get = |counts: &BTreeMap<Key, i64>| counts.get(&key).copied().unwrap_or(0);
        get(&self.base) + get(&self.added)
    }

    /// The buckets of a topic, from `oldest` on, whose count is not zero.
    fn since(&self, topic: Topic, oldest: BucketTime) -> BTreeSet<Key> {
        let range = (topic, oldest)..=(topic, BucketTime::MAX);
        let keys =
            self.base.range(range.clone()).chain(self.added.range(range)).map(|(key, _)| *key);
        keys.filter(|key| self.get(*key) != 0).collect()
    }
}

/// The buckets that a change affects: one of each unit.
fn buckets(change: &Change) -> impl Iterator<Item = Key> {
    let metric = change.metric;
    let time = change.time;
    TimeUnit::ALL.into_iter().map(move |unit| (Topic::new(metric, unit), unit.truncate(time)))
}

/// How much was checked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CheckTotals {
    /// Versions that at least one subscriber received.
    pub(crate) versions: usize,
    /// Frames of all subscribers.
    pub(crate) frames: usize,
    /// Comparisons of a shown count with the expected one.
    pub(crate) buckets: usize,
}

impl CheckTotals {
    /// Adds what another checker has checked.
    pub(crate) const fn add(&mut self, other: Self) {
        self.versions += other.versions;
        self.frames += other.frames;
        self.buckets += other.buckets;
    }
}

/// The expected counts, and how the shown ones compare with them.
#[derive(Debug, Default)]
struct Comparison {
    counts: ExpectedCounts,
    checked: CheckTotals,
    violations: Vec<String>,
}

impl Comparison {
    fn report(&mut self, violation: impl FnOnce() -> String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation());
        }
    }

    fn compare(&mut self, mirror: &Mirror, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            self.checked.buckets += 1;
            let (topic, time) = key;
            let shown = mirror.get(key);
            let expected = self.counts.get(key);
            let evicted = shown.is_none() && time < mirror.oldest(topic);
            if shown.unwrap_or(0) == expected || evicted {
                continue;
            }
            self.report(|| {
                let version = mirror.version.map(|version| version.to_string()).unwrap_or_default();
                format!(
                    "{version}: {topic} at {time} shows {shown:?}, but the snapshot has {expected}"
                )
            });
        }
    }

    /// Compares every bucket that a subscriber has or should have.
    fn compare_all(&mut self, mirror: &Mirror) {
        for topic in Topic::all() {
            let mut keys = self.counts.since(topic, mirror.oldest(topic));
            let shown = &mirror.windows[topic.index()].buckets;
            keys.extend(shown.keys().map(|time| (topic, *time)));
            self.compare(mirror, keys);
        }
    }
}

/// Checks the frames of all subscribers, from one pause to the next.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    comparison: Comparison,
    /// The state of each subscriber at the last pause, by its index.
    mirrors: Vec<Mirror>,
    /// The transactions of all changes before the last pause, and the time of the last change of
    /// each.
    transactions: BTreeMap<u64, SystemTime>,
}

/// The most violations that one check reports.
const VIOLATIONS_MAX: usize = 20;

impl Checker {
    /// How much was checked until now.
    pub(crate) const fn checked(&self) -> CheckTotals {
        self.comparison.checked
    }

    /// Checks all frames since the last pause. `frames` has the frames of each subscriber, in the
    /// same order at each call. Returns the violations.
    pub(crate) fn check(
        &mut self,
        published: &HashMap<Version, Publication>,
        changes: &Changes,
        frames: &[Vec<Frame>],
    ) -> Vec<String> {
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
            for (subscriber, mirror) in self.term(*nonce, ticks, published, changes.of(*nonce)) {
                // Of several terms, its state is that of the one it received last.
                if frames[subscriber].last().map(|frame| frame.version) == mirror.version {
                    mirrors[subscriber] = mirror;
                }
            }
        }
        self.mirrors = mirrors;
        let comparison = &mut self.comparison;
        for change in &changes.kept {
            for key in buckets(change) {
                *comparison.counts.base.entry(key).or_insert(0) += change.delta;
            }
            self.transactions.insert(change.transaction, change.made);
        }
        comparison.counts.added.clear();
        for mirror in &self.mirrors {
            comparison.compare_all(mirror);
        }
        std::mem::take(&mut comparison.violations)
    }

    /// Checks the frames of one term, tick by tick. Returns the states of its subscribers after
    /// them.
    fn term(
        &mut self,
        nonce: Nonce,
        ticks: &Ticks<'_>,
        published: &HashMap<Version, Publication>,
        changes: &[Change],
    ) -> HashMap<usize, Mirror> {
        let comparison = &mut self.comparison;
        comparison.counts.added.clear();
        let mut mirrors: HashMap<usize, Mirror> = HashMap::new();
        let mut unseen: Vec<&Change> = changes.iter().collect();
        // The buckets that each tick changed, because a subscriber may receive several ticks in one
        // frame.
        let mut touched: BTreeMap<u64, Vec<Key>> = BTreeMap::new();
        for (tick, shown) in ticks {
            let version = Version { nonce, tick: *tick };
            let Some(publication) = published.get(&version) else {
                comparison.report(|| format!("{version} was shown, but never published"));
                continue;
            };
            let mut at_last_pause = self.transactions.range(publication.snapshot.xmin()..);
            if at_last_pause.any(|(transaction, made)| !publication.sees(*transaction, *made)) {
                comparison.report(|| {
                    format!("{version} was shown, but is older than the state at the last pause")
                });
                continue;
            }
            comparison.checked.versions += 1;
            let seen =
                unseen.extract_if(.., |change| publication.sees(change.transaction, change.made));
            for change in seen {
                for key in buckets(change) {
                    *comparison.counts.added.entry(key).or_insert(0) += change.delta;
                    touched.entry(*tick).or_default().push(key);
                }
            }
            for (subscriber, frame) in shown {
                comparison.checked.frames += 1;
                let mirror =
                    mirrors.entry(*subscriber).or_insert_with(|| self.mirrors[*subscriber].clone());
                let before = mirror.version.filter(|before| before.nonce == nonce);
                for part in &frame.topics {
                    if part.window != part.topic.unit.window() {
                        comparison.report(|| {
                            format!("{version}: {} has a window of {}", part.topic, part.window)
                        });
                    }
                }
                let mut keys = mirror.apply(frame);
                if frame.kind == FrameKind::Snapshot {
                    comparison.compare_all(mirror);
                    continue;
                }
                let Some(before) = before else {
                    comparison.report(|| {
                        format!("{version} was a patch without a snapshot of its term before it")
                    });
                    continue;
                };
                let since = (before.tick.min(*tick) + 1).min(*tick)..=*tick;
                keys.extend(touched.range(since).flat_map(|(_, keys)| keys));
                comparison.compare(mirror, keys);
            }
        }
        mirrors
    }

    /// All counts at the last pause that are not zero: the topic's name, the bucket's start, the
    /// count.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (String, BucketTime, i64)> + '_ {
        let counts = self.comparison.counts.base.iter().filter(|(_, count)| **count != 0);
        counts.map(|((topic, time), count)| (topic.to_string(), *time, *count))
    }
}
