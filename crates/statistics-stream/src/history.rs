//! What was counted in any period, a page at a time: the words in which a gateway asks its upstream.

use std::fmt;

use actix_web::error::QueryPayloadError;
use actix_web::{HttpRequest, web};
use domain::{Bucket, BucketTime, Topic, UnknownTopic};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The path of the history of a topic, as a pattern of the router.
pub const PATTERN: &str = "/internal/v1/history/{metric}/{unit}";

/// The type of the problem that says that a unit does not keep a period any more.
pub const NOT_KEPT: &str = "/problems/not-kept";

/// A page that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// What was counted, by which unit.
    pub topic: Topic,
    /// Buckets that begin at this time or later; from the first one that is kept where there is none.
    pub from: Option<BucketTime>,
    /// Buckets that begin before this time; to the last one where there is none.
    pub to: Option<BucketTime>,
    /// How many buckets at most; the upstream may give fewer.
    pub limit: usize,
}

/// The query of [`Query::path`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Period {
    from: Option<BucketTime>,
    to: Option<BucketTime>,
    limit: usize,
}

/// What was asked makes no sense. Gateways ask only what does.
#[derive(Debug, thiserror::Error)]
pub enum InvalidQuery {
    /// The path names no topic.
    #[error(transparent)]
    Topic(#[from] UnknownTopic),
    /// The query has a value that it cannot have.
    #[error("the query cannot be understood: {0}")]
    Period(#[from] QueryPayloadError),
}

impl Query {
    /// What a gateway asked for on [`PATTERN`].
    ///
    /// # Errors
    /// [`InvalidQuery`].
    pub fn of(request: &HttpRequest) -> Result<Self, InvalidQuery> {
        let part = |name| request.match_info().query(name);
        let topic = format!("{}/{}", part("metric"), part("unit")).parse()?;
        let Period { from, to, limit } =
            web::Query::<Period>::from_query(request.query_string())?.into_inner();
        Ok(Self { topic, from, to, limit })
    }

    /// The path and the query to ask an upstream for.
    #[must_use]
    pub fn path(&self) -> String {
        let time =
            |name, time: Option<BucketTime>| time.map_or_else(String::new, |time| format!("&{name}={time}"));
        let (from, to) = (time("from", self.from), time("to", self.to));
        format!("/internal/v1/history/{}?limit={}{from}{to}", self.topic, self.limit)
    }
}

/// A page of history. All of it is of one snapshot of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Page {
    /// What was counted, by which unit.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    #[cfg_attr(test, ts(type = "string"))]
    pub topic: Topic,
    /// Where the page begins: what was asked for, or the first moment that is kept.
    #[cfg_attr(test, ts(type = "string"))]
    pub from: BucketTime,
    /// Where what was asked for ends; null where it does not.
    #[cfg_attr(test, ts(type = "string | null"))]
    pub to: Option<BucketTime>,
    /// The buckets in which anything was ever counted, oldest first.
    #[cfg_attr(test, ts(type = "Array<import('./Bucket').Bucket>"))]
    pub buckets: Vec<Bucket>,
    /// From where to ask for the next page; null where this is the last.
    #[cfg_attr(test, ts(type = "string | null"))]
    pub next: Option<BucketTime>,
}

fn as_text<S: Serializer>(topic: impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&topic)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Topic, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_fixed() {
        let json = r#"{"topic":"transfers/day","from":"2026-11-01T00:00:00Z","to":null,"buckets":[{"time":"2026-11-02T00:00:00Z","count":3}],"next":"2026-11-03T00:00:00Z"}"#;
        let page: Page = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&page).unwrap(), json);
        let query = Query { topic: page.topic, from: Some(page.from), to: page.to, limit: 7 };
        assert_eq!(query.path(), "/internal/v1/history/transfers/day?limit=7&from=2026-11-01T00:00:00Z");
    }
}
