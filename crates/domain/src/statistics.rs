//! The state of all topics at one version, and how it changes.

use crate::window::Window;
use crate::{BucketTime, Changes, Frame, FrameKind, Topic, TopicFrame, Version};

/// The newest buckets ever touched of every topic, at one [`Version`].
///
/// The publisher [advances](Statistics::advance) it by the changes of each tick. Every later hop
/// [applies](Statistics::apply) the frames of the hop before it. A receiver that has applied all
/// frames up to a version holds exactly the publisher's state of that version. Counts in frames are
/// absolute, so applying a frame twice is harmless.
///
/// A bucket leaves only when it is the oldest of a window that overflows. A count that falls to
/// zero stays, because a receiver could not distinguish "deleted" from "not mentioned". A time
/// older than the oldest bucket of a full window is ignored: that bucket may have been dropped
/// before, and then its count is not known any more.
#[derive(Debug, Clone)]
pub struct Statistics {
    version: Version,
    /// The oldest tick from which a receiver can resume by a patch: the tick of the last snapshot.
    /// A snapshot does not say which buckets the ticks before it named.
    resume_floor: u64,
    topics: Vec<Window>,
}

/// Why a frame was not applied. The state is unchanged.
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
    /// The frame is a patch of another term. Only a snapshot can begin a term.
    #[error("a patch of version {got}, but the state is of another term: {held}")]
    OtherTerm {
        /// The version of the state.
        held: Version,
        /// The version of the frame.
        got: Version,
    },
    /// The window is 0, or larger than the unit's.
    #[error("a window of {window} for {topic}, which allows 1 to {}", topic.unit.window())]
    Window {
        /// The topic of the frame.
        topic: Topic,
        /// The window of the frame.
        window: usize,
    },
    /// No bucket of this unit starts at this time.
    #[error("no bucket of {topic} starts at {time}")]
    Misaligned {
        /// The topic of the frame.
        topic: Topic,
        /// The time of the bucket.
        time: BucketTime,
    },
}

/// How a receiver that holds some version gets to the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// By the changes since this tick, which is the tick of its version.
    Patch(u64),
    /// By snapshots: it has no version, or its version is of another term or too old.
    Snapshot,
    /// It waits: it holds a later version of this term, and this state has to catch up first.
    Ahead,
}

impl Resume {
    /// The state that the receiver's next frame builds on. `None` if the receiver is
    /// [ahead](Resume::Ahead), and so gets no frame.
    pub const fn base(self) -> Option<FrameBase> {
        match self {
            Self::Patch(tick) => Some(FrameBase::Tick(tick)),
            Self::Snapshot => Some(FrameBase::Empty),
            Self::Ahead => None,
        }
    }
}

/// The state that a frame builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameBase {
    /// None: the frame is a snapshot.
    Empty,
    /// The state of this tick of the same term: the frame is a patch.
    Tick(u64),
}

impl FrameBase {
    /// The kind of frame that builds on this state.
    pub const fn kind(self) -> FrameKind {
        match self {
            Self::Empty => FrameKind::Snapshot,
            Self::Tick(_) => FrameKind::Patch,
        }
    }
}

impl Statistics {
    /// The state at `version`, without any counts.
    pub fn new(version: Version) -> Self {
        let topics = Topic::all().map(|topic| Window::new(topic.unit.window())).collect();
        Self { version, resume_floor: version.tick, topics }
    }

    /// The version of this state.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Adds `changes` to the counts, and moves to the next version.
    pub fn advance(&mut self, changes: &Changes) {
        self.version.tick += 1;
        let tick = self.version.tick;
        for topic in Topic::all() {
            let window = &mut self.topics[topic.index()];
            for (time, delta) in changes.in_topic(topic) {
                window.set(time, window.count(time).saturating_add(delta), tick);
            }
        }
    }

    /// Applies a frame of the hop before this one.
    ///
    /// A snapshot of another term clears all topics, including those that it does not name.
    ///
    /// # Errors
    /// [`ApplyError`] if the frame does not fit. The state is then unchanged.
    pub fn apply(&mut self, frame: &Frame) -> Result<(), ApplyError> {
        let held = self.version;
        let got = frame.version;
        if held.nonce == got.nonce && got.tick < held.tick {
            return Err(ApplyError::Backward { held, got });
        }
        if held.nonce != got.nonce && frame.kind == FrameKind::Patch {
            return Err(ApplyError::OtherTerm { held, got });
        }
        for topic in &frame.topics {
            topic.check()?;
        }
        if held.nonce != got.nonce {
            *self = Self::new(got);
        }
        self.version = got;
        if frame.kind == FrameKind::Snapshot {
            self.resume_floor = got.tick;
        }
        for topic in &frame.topics {
            let window = &mut self.topics[topic.topic.index()];
            if frame.kind == FrameKind::Snapshot {
                *window = Window::new(topic.window);
            }
            for bucket in &topic.buckets {
                // Every bucket that a frame names takes the frame's tick, even if its count is the
                // same: a receiver further down may hold an older count than this state does.
                window.set(bucket.time, bucket.count, got.tick);
            }
        }
        Ok(())
    }

    /// How a receiver that holds version `from`, or no version, gets to this version.
    pub fn resume(&self, from: Option<Version>) -> Resume {
        match from {
            Some(from) if from.nonce == self.version.nonce && from.tick > self.version.tick => {
                Resume::Ahead
            }
            Some(from) if from.nonce == self.version.nonce && from.tick >= self.resume_floor => {
                Resume::Patch(from.tick)
            }
            _ => Resume::Snapshot,
        }
    }

    /// One topic's part of a frame that builds on `base`. `None` if the topic has not changed since
    /// then: a patch leaves it out.
    pub fn topic_since(&self, base: FrameBase, topic: Topic, window: usize) -> Option<TopicFrame> {
        match base {
            FrameBase::Empty => Some(self.snapshot(topic, window)),
            FrameBase::Tick(tick) => {
                let changes = self.changes_since(tick, topic, window);
                (!changes.buckets.is_empty()).then_some(changes)
            }
        }
    }

    /// Those of the newest `window` buckets of `topic` that a tick after `since` named.
    ///
    /// Complete only for a receiver that [resumes](Resume::Patch) from that tick.
    pub fn changes_since(&self, since: u64, topic: Topic, window: usize) -> TopicFrame {
        let held = &self.topics[topic.index()];
        let window = window.min(held.capacity());
        TopicFrame { topic, window, buckets: held.named_since(since, window) }
    }

    /// The newest `window` buckets of `topic`.
    pub fn snapshot(&self, topic: Topic, window: usize) -> TopicFrame {
        let held = &self.topics[topic.index()];
        let window = window.min(held.capacity());
        TopicFrame { topic, window, buckets: held.newest(window) }
    }

    /// The frame that brings a receiver of `topics` from version `from` to this version. `None` if
    /// nothing changed for the receiver, or if it is [ahead](Resume::Ahead).
    pub fn frame_since(&self, from: Option<Version>, topics: &[Topic]) -> Option<Frame> {
        let base = self.resume(from).base()?;
        let parts = topics.iter().filter_map(|&topic| self.topic_since(base, topic, usize::MAX));
        let topics: Vec<TopicFrame> = parts.collect();
        (!topics.is_empty()).then_some(Frame { kind: base.kind(), version: self.version, topics })
    }
}

impl TopicFrame {
    /// Whether a state can hold these buckets. They come from another process.
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
