//! What one subscriber asked for.

use domain::Topic;

/// How much each event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payload {
    /// A snapshot first, then what changed.
    Changes,
    /// The whole window each time, newest first, as unnamed messages.
    Full,
}

/// The topics that a subscriber follows, and in what form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    topics: Vec<Topic>,
    last: usize,
    payload: Payload,
    /// Whether data is an array of topics, or the one topic itself.
    array: bool,
}

/// Why topics cannot be followed together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelection {
    /// None was named.
    #[error("name at least one topic, as in topic=transfers/minute")]
    Empty,
    /// One was named twice.
    #[error("{0} is named twice")]
    Twice(Topic),
    /// A window of no buckets.
    #[error("last must be at least 1")]
    NoWindow,
}

impl Selection {
    /// One topic by itself.
    #[must_use]
    pub fn one(topic: Topic) -> Self {
        Self { topics: vec![topic], last: usize::MAX, payload: Payload::Changes, array: false }
    }

    /// Several topics, as an array in this order.
    ///
    /// # Errors
    /// [`InvalidSelection`] where there is none, or one twice.
    pub fn many(topics: Vec<Topic>) -> Result<Self, InvalidSelection> {
        if topics.is_empty() {
            return Err(InvalidSelection::Empty);
        }
        for (place, topic) in topics.iter().enumerate() {
            if topics[..place].contains(topic) {
                return Err(InvalidSelection::Twice(*topic));
            }
        }
        Ok(Self { topics, last: usize::MAX, payload: Payload::Changes, array: true })
    }

    /// Every topic.
    #[must_use]
    pub fn all() -> Self {
        Self { topics: Topic::all().collect(), last: usize::MAX, payload: Payload::Changes, array: true }
    }

    /// Only the newest `last` buckets of each topic.
    ///
    /// # Errors
    /// [`InvalidSelection::NoWindow`] for 0.
    pub fn narrowed(self, last: usize) -> Result<Self, InvalidSelection> {
        if last == 0 { Err(InvalidSelection::NoWindow) } else { Ok(Self { last, ..self }) }
    }

    /// With this payload.
    #[must_use]
    pub fn with(self, payload: Payload) -> Self {
        Self { payload, ..self }
    }

    /// The topics, in the order asked.
    #[must_use]
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// How many buckets of each at most.
    #[must_use]
    pub const fn last(&self) -> usize {
        self.last
    }

    /// How much each event carries.
    #[must_use]
    pub const fn payload(&self) -> Payload {
        self.payload
    }

    /// Whether data is an array of topics.
    #[must_use]
    pub const fn is_array(&self) -> bool {
        self.array
    }
}
