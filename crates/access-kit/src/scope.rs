//! Scopes: what a key may do. No scope implies another.
//!
//! A scope is a permission, such as `ingest:write`. `statistics:read` can be narrowed to topics:
//! `statistics:read:transfers/*` or `statistics:read:*/day`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What can be permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Store new rows.
    IngestWrite,
    /// Delete rows, to correct what was stored.
    IngestDelete,
    /// Read rows.
    IngestRead,
    /// Read counts, of the topics that the scope names.
    StatisticsRead,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 4] =
        [Self::IngestWrite, Self::IngestDelete, Self::IngestRead, Self::StatisticsRead];

    /// The name, as in scopes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IngestWrite => "ingest:write",
            Self::IngestDelete => "ingest:delete",
            Self::IngestRead => "ingest:read",
            Self::StatisticsRead => "statistics:read",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A permission, and for counts the topics that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Scope {
    permission: Permission,
    topics: Option<TopicPattern>,
}

/// Topics, such as `transfers/*`: a part that is `*` stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    metric: String,
    unit: String,
}

const ANY: &str = "*";

impl TopicPattern {
    /// The name of the metric, or `*`.
    #[must_use]
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// The name of the unit, or `*`.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    fn has(&self, topic: &str) -> bool {
        let matches = |part: &str, name: &str| part == ANY || part == name;
        topic.split_once('/').is_some_and(|(metric, unit)| {
            matches(&self.metric, metric) && matches(&self.unit, unit)
        })
    }
}

impl Scope {
    /// The permission, for all topics.
    #[must_use]
    pub const fn all(permission: Permission) -> Self {
        Self { permission, topics: None }
    }

    /// What is permitted.
    #[must_use]
    pub const fn permission(&self) -> Permission {
        self.permission
    }

    /// The topics; `None` is all.
    #[must_use]
    pub const fn topics(&self) -> Option<&TopicPattern> {
        self.topics.as_ref()
    }
}

/// The text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown scope {0:?}: the scopes are ingest:write, ingest:delete, ingest:read and \
     statistics:read, which can be narrowed as statistics:read:transfers/* or \
     statistics:read:item-creation/day"
)]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let unknown = || UnknownScope(text.to_owned());
        if let Some(permission) = Permission::ALL.into_iter().find(|known| known.name() == text) {
            return Ok(Self::all(permission));
        }
        let permission = Permission::StatisticsRead;
        let topics = text.strip_prefix(permission.name()).and_then(|rest| rest.strip_prefix(':'));
        let (metric, unit) =
            topics.and_then(|topics| topics.split_once('/')).ok_or_else(unknown)?;
        let is_part = |part: &str| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
            part == ANY || (!part.is_empty() && part.bytes().all(plain))
        };
        if !is_part(metric) || !is_part(unit) {
            return Err(unknown());
        }
        let topics = TopicPattern { metric: metric.to_owned(), unit: unit.to_owned() };
        Ok(Self { permission, topics: Some(topics) })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topics {
            None => self.permission.fmt(formatter),
            Some(TopicPattern { metric, unit }) => {
                write!(formatter, "{}:{metric}/{unit}", self.permission)
            }
        }
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl TryFrom<String> for Scope {
    type Error = UnknownScope;

    fn try_from(text: String) -> Result<Self, UnknownScope> {
        text.parse()
    }
}

/// All that one principal may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Permission::ALL.into_iter().map(Scope::all).collect()
    }

    /// Whether something is permitted. For counts, of at least one topic.
    #[must_use]
    pub fn allow(&self, permission: Permission) -> bool {
        self.0.iter().any(|scope| scope.permission == permission)
    }

    /// Whether the counts of a topic, such as `transfers/day`, may be read.
    #[must_use]
    pub fn allow_topic(&self, topic: &str) -> bool {
        self.0
            .iter()
            .filter(|scope| scope.permission == Permission::StatisticsRead)
            .any(|scope| scope.topics.as_ref().is_none_or(|topics| topics.has(topic)))
    }

    /// The scopes.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(texts: &[&str]) -> Scopes {
        texts.iter().map(|text| text.parse::<Scope>().unwrap()).collect()
    }

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        let all = Permission::ALL.map(Permission::name);
        let narrowed = ["statistics:read:transfers/*", "statistics:read:*/day"];
        for text in all.into_iter().chain(narrowed) {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "ingest",
            "ingest:*",
            "*",
            "ingest:write:items",
            "INGEST:WRITE",
            "statistics:read:",
            "statistics:read:transfers",
            "statistics:read:transfers/",
            "statistics:read:/day",
            "statistics:read:transfers/day/x",
            "statistics:read:trans*/day",
            " statistics:read",
        ] {
            assert_eq!(text.parse::<Scope>().unwrap_err(), UnknownScope(text.to_owned()));
        }
    }

    #[test]
    fn no_scope_implies_another() {
        for permission in Permission::ALL {
            let only = scopes(&[permission.name()]);
            let allowed = Permission::ALL.into_iter().filter(|other| only.allow(*other));
            assert_eq!(allowed.collect::<Vec<_>>(), [permission]);
        }
        assert!(!Scopes::default().allow(Permission::StatisticsRead));
    }

    #[test]
    fn counts_are_narrowed_to_topics() {
        let narrowed = scopes(&["statistics:read:transfers/*", "statistics:read:*/day"]);
        assert!(narrowed.allow(Permission::StatisticsRead));
        for topic in ["transfers/day", "transfers/second", "item-creation/day"] {
            assert!(narrowed.allow_topic(topic), "{topic}");
        }
        for topic in ["item-creation/second", "transfers", "", "/", "x/transfers/day"] {
            assert!(!narrowed.allow_topic(topic), "{topic}");
        }
        assert!(scopes(&["statistics:read"]).allow_topic("transfers/day"));
        assert!(!scopes(&["ingest:read"]).allow_topic("transfers/day"));
    }
}
