//! Topics: what a subscriber follows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Metric, TimeUnit};

/// One metric counted in buckets of one unit, written `transfers/minute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic {
    /// What is counted.
    pub metric: Metric,
    /// The length of the buckets.
    pub unit: TimeUnit,
}

impl Topic {
    /// The number of topics.
    pub const COUNT: usize = Metric::ALL.len() * TimeUnit::ALL.len();

    /// Counts of `metric` per `unit`.
    pub const fn new(metric: Metric, unit: TimeUnit) -> Self {
        Self { metric, unit }
    }

    /// Every topic, ordered by metric, then finest unit first.
    pub fn all() -> impl Iterator<Item = Self> {
        Metric::ALL
            .into_iter()
            .flat_map(|metric| TimeUnit::ALL.into_iter().map(move |unit| Self::new(metric, unit)))
    }

    /// The topic's position in [`Topic::all`], less than [`Topic::COUNT`].
    pub const fn index(self) -> usize {
        self.metric as usize * TimeUnit::ALL.len() + self.unit as usize
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.metric, self.unit)
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not the name of a [`Topic`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownTopic {
    /// The text has no slash between a metric and a unit.
    #[error("unknown topic {0:?}: expected metric/unit, as in transfers/minute")]
    NoSlash(String),
    /// The part before the slash is not a metric.
    #[error(transparent)]
    Metric(#[from] crate::UnknownMetric),
    /// The part after the slash is not a unit.
    #[error(transparent)]
    TimeUnit(#[from] crate::UnknownTimeUnit),
}

impl FromStr for Topic {
    type Err = UnknownTopic;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (metric, unit) =
            text.split_once('/').ok_or_else(|| UnknownTopic::NoSlash(text.to_owned()))?;
        Ok(Self::new(metric.parse()?, unit.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_its_own_index_and_name() {
        for (position, topic) in Topic::all().enumerate() {
            assert_eq!(topic.index(), position);
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
        assert_eq!(Topic::all().count(), Topic::COUNT);
    }

    #[test]
    fn the_error_says_which_part_of_a_name_is_wrong() {
        let message = |text: &str| text.parse::<Topic>().unwrap_err().to_string();
        assert!(message("minute").starts_with("unknown topic"));
        assert!(message("items/minute").starts_with("unknown metric \"items\""));
        assert!(message("transfers/decade").starts_with("unknown unit \"decade\""));
    }
}
