//! The state of all topics at one version, and how it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::{Bucket, BucketTime, Changes, Frame, FrameKind, Topic, TopicFrame, Version};

/// The newest buckets ever touched of every topic, at one [`Version`].
///
/// The publisher [advances](Statistics::advance) it by what was counted, every later hop
/// [applies](Statistics::apply) the frames that the hop before made of it; whoever has applied the frames up
/// to a version holds exactly the publisher's state of that version. Counts in frames are absolute, so a
/// frame applied twice is harmless.
///
/// A bucket leaves only as the oldest of a window that overflows: a count that falls to zero stays, because a
/// receiver could not tell "no longer there" from "not mentioned". A time older than the oldest of a full
/// window is ignored: the bucket may once have been evicted, and its count is no longer known.
#[derive(Debug, Clone)]
pub struct Statistics {
    version: Version,
    /// The oldest tick that [`Statistics::changes_since`] can start from: the last snapshot's, because a
    /// snapshot does not say which buckets the ticks before it touched.
    resume_floor: u64,
    topics: Vec<Window>,
}

/// The newest buckets of one topic.
#[derive(Debug, Clone)]
struct Window {
    bound: usize,
    buckets: BTreeMap<BucketTime, Held>,
    /// The same buckets by the tick that last named them.
    by_mention: BTreeSet<(u64, BucketTime)>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    count: i64,
    mentioned: u64,
}

/// Why a frame was not applied. The state is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The frame is of an earlier tick of the same term.
    #[error("a frame of version {got} after version {held}")]
    Backward {
        /// The version of the state.
        held: Version,
        /// The version of the frame.
        got: Version,
    },
    /// A patch of a term of which no snapshot was applied.
    #[error("a patch of version {got}, but the state held is of another term: {held}")]
    OtherTerm {
        /// The version of the state.
        held: Version,
        /// The version of the frame.
        got: Version,
    },
    /// A frame's window is empty or larger than the unit's.
    #[error("a window of {window} for {topic}, which has 1 to {}", topic.unit.window())]
    Window {
        /// The topic of the frame.
        topic: Topic,
        /// Its window.
        window: usize,
    },
    /// A bucket does not begin where a bucket of its unit begins.
    #[error("no bucket of {topic} begins at {time}")]
    Misaligned {
        /// The topic of the frame.
        topic: Topic,
        /// The time of the bucket.
        time: BucketTime,
    },
}

/// How a receiver whose state is of some version is brought to the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// By the [changes since](Statistics::changes_since) its version.
    Patch,
    /// By [snapshots](Statistics::snapshot): its version is of another term, or too old.
    Snapshot,
    /// Not yet: it has seen a later version of this term, and must wait until this state has caught up.
    Ahead,
}

impl Statistics {
    /// The state at `version` in which nothing was ever counted.
    #[must_use]
    pub fn new(version: Version) -> Self {
        let topics = Topic::all().map(|topic| Window::new(topic.unit.window())).collect();
        Self { version, resume_floor: version.tick, topics }
    }

    /// The version whose state this is.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Counts `changes` and moves on to the next version.
    pub fn advance(&mut self, changes: &Changes) {
        self.version.tick += 1;
        let tick = self.version.tick;
        for topic in Topic::all() {
            let window = &mut self.topics[topic.index()];
            for (time, delta) in changes.of(topic) {
                let count = window.buckets.get(&time).map_or(0, |held| held.count);
                window.set(time, count.saturating_add(delta), tick);
            }
        }
    }

    /// Takes over the state that `frame` carries.
    ///
    /// A snapshot of another term forgets all topics, also those that it does not name.
    ///
    /// # Errors
    /// [`ApplyError`] where the frame does not fit; nothing was then changed.
    pub fn apply(&mut self, frame: &Frame) -> Result<(), ApplyError> {
        let (held, got) = (self.version, frame.version);
        if held.nonce == got.nonce && got.tick < held.tick {
            return Err(ApplyError::Backward { held, got });
        }
        if held.nonce != got.nonce && frame.kind == FrameKind::Patch {
            return Err(ApplyError::OtherTerm { held, got });
        }
        for part in &frame.topics {
            part.check()?;
        }
        if held.nonce != got.nonce {
            *self = Self::new(got);
        }
        self.version = got;
        if frame.kind == FrameKind::Snapshot {
            self.resume_floor = got.tick;
        }
        for part in &frame.topics {
            let window = &mut self.topics[part.topic.index()];
            if frame.kind == FrameKind::Snapshot {
                *window = Window::new(part.window);
            }
            for bucket in &part.buckets {
                // Named is mentioned, even where the count is equal: a receiver further down may hold an older
                // count than this state does.
                window.set(bucket.time, bucket.count, got.tick);
            }
        }
        Ok(())
    }

    /// How a receiver of version `from` is brought to this version.
    #[must_use]
    pub fn resume(&self, from: Version) -> Resume {
        if from.nonce != self.version.nonce || from.tick < self.resume_floor {
            Resume::Snapshot
        } else if from.tick > self.version.tick {
            Resume::Ahead
        } else {
            Resume::Patch
        }
    }

    /// The buckets of `topic` mentioned after tick `since` of this term, among the newest `window`.
    ///
    /// Complete only for a receiver that may [resume](Statistics::resume) by a patch.
    #[must_use]
    pub fn changes_since(&self, since: u64, topic: Topic, window: usize) -> TopicFrame {
        let held = &self.topics[topic.index()];
        let window = window.min(held.bound);
        let oldest = held.oldest_of_newest(window);
        let mut times: Vec<BucketTime> = held
            .by_mention
            .range((Bound::Excluded((since, BucketTime::MAX)), Bound::Unbounded))
            .map(|&(_, time)| time)
            .filter(|time| oldest.is_none_or(|oldest| *time >= oldest))
            .collect();
        times.sort_unstable();
        let bucket = |time| Bucket { time, count: held.buckets.get(&time).map_or(0, |held| held.count) };
        TopicFrame { topic, window, buckets: times.into_iter().map(bucket).collect() }
    }

    /// The newest `window` buckets of `topic`.
    #[must_use]
    pub fn snapshot(&self, topic: Topic, window: usize) -> TopicFrame {
        let held = &self.topics[topic.index()];
        let window = window.min(held.bound);
        let skipped = held.buckets.len().saturating_sub(window);
        let buckets = held.buckets.iter().skip(skipped);
        let buckets = buckets.map(|(&time, held)| Bucket { time, count: held.count }).collect();
        TopicFrame { topic, window, buckets }
    }

    /// One frame that brings a receiver of `topics`, whose state is of version `from`, to this version: a patch
    /// that names only the topics that changed, or snapshots of all. `None` where nothing changed for it, or
    /// where it is [ahead](Resume::Ahead).
    #[must_use]
    pub fn frame_since(&self, from: Option<Version>, topics: &[Topic]) -> Option<Frame> {
        let (kind, topics) = match from.map(|from| (from.tick, self.resume(from))) {
            Some((_, Resume::Ahead)) => return None,
            Some((tick, Resume::Patch)) => {
                let changes = topics.iter().map(|&topic| self.changes_since(tick, topic, usize::MAX));
                (FrameKind::Patch, changes.filter(|part| !part.buckets.is_empty()).collect::<Vec<_>>())
            }
            None | Some((_, Resume::Snapshot)) => {
                let snapshots = topics.iter().map(|&topic| self.snapshot(topic, usize::MAX));
                (FrameKind::Snapshot, snapshots.collect())
            }
        };
        (!topics.is_empty()).then_some(Frame { kind, version: self.version, topics })
    }
}

impl Window {
    const fn new(bound: usize) -> Self {
        Self { bound, buckets: BTreeMap::new(), by_mention: BTreeSet::new() }
    }

    fn set(&mut self, time: BucketTime, count: i64, tick: u64) {
        if let Some(held) = self.buckets.get_mut(&time) {
            self.by_mention.remove(&(held.mentioned, time));
            *held = Held { count, mentioned: tick };
            self.by_mention.insert((tick, time));
            return;
        }
        if self.buckets.len() >= self.bound {
            match self.buckets.first_key_value() {
                Some((&oldest, _)) if time < oldest => return,
                _ => {}
            }
            if let Some((oldest, held)) = self.buckets.pop_first() {
                self.by_mention.remove(&(held.mentioned, oldest));
            }
        }
        self.buckets.insert(time, Held { count, mentioned: tick });
        self.by_mention.insert((tick, time));
    }

    /// The oldest of the newest `count` buckets, where there are more than that.
    fn oldest_of_newest(&self, count: usize) -> Option<BucketTime> {
        if self.buckets.len() <= count {
            return None;
        }
        self.buckets.keys().rev().nth(count.saturating_sub(1)).copied()
    }
}

impl TopicFrame {
    /// Whether a state can hold what the frame names: it comes from another process.
    fn check(&self) -> Result<(), ApplyError> {
        let topic = self.topic;
        if !(1..=topic.unit.window()).contains(&self.window) {
            return Err(ApplyError::Window { topic, window: self.window });
        }
        match self.buckets.iter().find(|bucket| topic.unit.truncate(bucket.time) != bucket.time) {
            Some(bucket) => Err(ApplyError::Misaligned { topic, time: bucket.time }),
            None => Ok(()),
        }
    }
}
