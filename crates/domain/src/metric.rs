//! The kinds of events that are counted.

use std::fmt;
use std::str::FromStr;

/// A kind of event that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// An item was created: one row of `items`, at its `created_at`.
    ItemCreation,
    /// An item was transferred to a user: one row of `transfers`, at its `timestamp`.
    Transfers,
}

impl Metric {
    /// Every metric, in the order that [`Topic::all`](crate::Topic::all) uses.
    pub const ALL: [Self; 2] = [Self::ItemCreation, Self::Transfers];

    /// The name in paths, frames and the `metric` columns of the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ItemCreation => "item-creation",
            Self::Transfers => "transfers",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The text is not the name of a [`Metric`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown metric {0:?}: expected item-creation or transfers")]
pub struct UnknownMetric(String);

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.as_str() == text)
            .ok_or_else(|| UnknownMetric(text.to_owned()))
    }
}
