//! What a subscriber follows.

use std::fmt;
use std::str::FromStr;

use crate::{Metric, TimeUnit};

/// One metric counted by one unit, written `transfers/minute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic {
    /// What is counted.
    pub metric: Metric,
    /// The length of the buckets.
    pub unit: TimeUnit,
}

impl Topic {
    /// How many topics there are.
    pub const COUNT: usize = Metric::ALL.len() * TimeUnit::ALL.len();

    /// The topic of `metric` by `unit`.
    #[must_use]
    pub const fn new(metric: Metric, unit: TimeUnit) -> Self {
        Self { metric, unit }
    }

    /// Every topic, ordered by metric, then finest unit first.
    pub fn all() -> impl Iterator<Item = Self> {
        Metric::ALL
            .into_iter()
            .flat_map(|metric| TimeUnit::ALL.into_iter().map(move |unit| Self::new(metric, unit)))
    }

    /// The topic's place in [`Topic::all`], below [`Topic::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.metric as usize * TimeUnit::ALL.len() + self.unit as usize
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.metric, self.unit)
    }
}

/// The text names no [`Topic`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownTopic {
    /// There is no slash between a metric and a unit.
    #[error("unknown topic {0:?}: expected metric/unit, as in transfers/minute")]
    Form(String),
    /// The part before the slash is no metric.
    #[error(transparent)]
    Metric(#[from] crate::UnknownMetric),
    /// The part after the slash is no unit.
    #[error(transparent)]
    TimeUnit(#[from] crate::UnknownTimeUnit),
}

impl FromStr for Topic {
    type Err = UnknownTopic;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (metric, unit) = text.split_once('/').ok_or_else(|| UnknownTopic::Form(text.to_owned()))?;
        Ok(Self::new(metric.parse()?, unit.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_its_own_index_and_name() {
        for (place, topic) in Topic::all().enumerate() {
            assert_eq!(topic.index(), place);
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
        assert_eq!(Topic::all().count(), Topic::COUNT);
    }

    #[test]
    fn a_wrong_name_says_which_part_is_wrong() {
        let message = |text: &str| text.parse::<Topic>().unwrap_err().to_string();
        assert!(message("minute").starts_with("unknown topic"));
        assert!(message("items/minute").starts_with("unknown metric \"items\""));
        assert!(message("transfers/decade").starts_with("unknown unit \"decade\""));
    }
}
