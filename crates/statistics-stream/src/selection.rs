//! What one subscriber asks for.

use std::num::NonZeroUsize;

use domain::Topic;

/// How much each event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payload {
    /// A snapshot first, then the changes.
    Changes,
    /// The whole window each time, newest bucket first, as unnamed messages.
    Full,
}

/// The topics that a subscriber follows, and the form of its events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    topics: Vec<Topic>,
    last: usize,
    payload: Payload,
    array: bool,
    /// Whether the subscriber is another gateway.
    internal: bool,
}

/// Why topics cannot be selected together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelection {
    /// No topic.
    #[error("name at least one topic, as in topic=transfers/minute")]
    Empty,
    /// A topic is listed twice.
    #[error("{0} is named twice")]
    Twice(Topic),
}

impl Selection {
    /// One topic. The data of its events is one object.
    pub fn one(topic: Topic) -> Self {
        Self { array: false, ..Self::array(vec![topic]) }
    }

    /// Several topics. The data of their events is an array, in this order.
    ///
    /// # Errors
    /// [`InvalidSelection`] if there is no topic, or one twice.
    pub fn many(topics: Vec<Topic>) -> Result<Self, InvalidSelection> {
        if topics.is_empty() {
            return Err(InvalidSelection::Empty);
        }
        for (position, topic) in topics.iter().enumerate() {
            if topics[..position].contains(topic) {
                return Err(InvalidSelection::Twice(*topic));
            }
        }
        Ok(Self::array(topics))
    }

    const fn array(topics: Vec<Topic>) -> Self {
        Self { topics, last: usize::MAX, payload: Payload::Changes, array: true, internal: false }
    }

    /// Every topic, for another gateway.
    pub fn all() -> Self {
        Self { internal: true, ..Self::array(Topic::all().collect()) }
    }

    /// Only the newest `last` buckets of each topic.
    #[must_use]
    pub fn narrowed(self, last: NonZeroUsize) -> Self {
        Self { last: last.get(), ..self }
    }

    /// With this payload instead of [`Payload::Changes`].
    #[must_use]
    pub fn with_payload(self, payload: Payload) -> Self {
        Self { payload, ..self }
    }

    /// The topics, in the order of the request.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The maximum number of buckets per topic.
    pub const fn last(&self) -> usize {
        self.last
    }

    /// How much each event carries.
    pub const fn payload(&self) -> Payload {
        self.payload
    }

    /// A digest of what the subscriber has after a frame: equal selections have the same digest on
    /// every gateway. `None` for another gateway.
    pub(crate) fn digest(&self) -> Option<u32> {
        let mut digest = crc32fast::Hasher::new();
        for topic in &self.topics {
            digest.update(topic.to_string().as_bytes());
            digest.update(b" ");
        }
        digest.update(&u64::try_from(self.last).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(&[u8::from(self.payload == Payload::Full)]);
        (!self.internal).then(|| digest.finalize())
    }

    /// Whether data is an array of topics, or one topic by itself.
    pub(crate) const fn is_array(&self) -> bool {
        self.array
    }
}
