//! The counts of any period, page by page: the internal request of a gateway to its upstream.

use actix_web::error::QueryPayloadError;
use actix_web::{HttpRequest, web};
use domain::{Bucket, BucketTime, Topic, UnknownTopic};
use serde::{Deserialize, Serialize};

/// The path of the history of a topic, as a route pattern.
pub const PATTERN: &str = "/internal/v1/history/{metric}/{unit}";

/// The problem type of a period that has expired: the unit does not keep it any more.
pub const NOT_KEPT: &str = "/problems/not-kept";

/// A request for one page of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The topic of the buckets.
    pub topic: Topic,
    /// Only buckets that start at this time or later. `None` means from the first one kept.
    pub from: Option<BucketTime>,
    /// Only buckets that start before this time. `None` means to the last one.
    pub to: Option<BucketTime>,
    /// The maximum number of buckets. The upstream may return fewer.
    pub limit: usize,
}

/// The query string of [`HistoryQuery::path`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    from: Option<BucketTime>,
    to: Option<BucketTime>,
    limit: usize,
}

/// Why a request for history is not valid. Gateways send only valid ones.
#[derive(Debug, thiserror::Error)]
pub enum InvalidHistoryQuery {
    /// The path does not name a topic.
    #[error(transparent)]
    Topic(#[from] UnknownTopic),
    /// A parameter of the query string is missing, unknown or not valid.
    #[error("the query is not valid: {0}")]
    Parameters(#[from] QueryPayloadError),
}

impl HistoryQuery {
    /// Parses a request to [`PATTERN`].
    pub fn from_request(request: &HttpRequest) -> Result<Self, InvalidHistoryQuery> {
        let part = |name| request.match_info().query(name);
        let topic = format!("{}/{}", part("metric"), part("unit")).parse()?;
        let Parameters { from, to, limit } =
            web::Query::<Parameters>::from_query(request.query_string())?.into_inner();
        Ok(Self { topic, from, to, limit })
    }

    /// The path and query string of this request.
    pub fn path(&self) -> String {
        let parameter = |name, time: Option<BucketTime>| {
            time.map_or_else(String::new, |time| format!("&{name}={time}"))
        };
        let from = parameter("from", self.from);
        let to = parameter("to", self.to);
        format!("/internal/v1/history/{}?limit={}{from}{to}", self.topic, self.limit)
    }
}

/// A page of history, from one snapshot of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The topic of the buckets.
    pub topic: Topic,
    /// The requested start, or the oldest time that is kept if none was requested.
    pub from: BucketTime,
    /// The requested end; `None` for an open end.
    pub to: Option<BucketTime>,
    /// Oldest first. Buckets that never had an event are left out.
    pub buckets: Vec<Bucket>,
    /// The start of the next page; `None` on the last one.
    pub next: Option<BucketTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_fixed() {
        let json = r#"{"topic":"transfers/day","from":"2026-11-01T00:00:00Z","to":null,"buckets":[{"time":"2026-11-02T00:00:00Z","count":3}],"next":"2026-11-03T00:00:00Z"}"#;
        let page: HistoryPage = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&page).unwrap(), json);
        let query =
            HistoryQuery { topic: page.topic, from: Some(page.from), to: page.to, limit: 7 };
        assert_eq!(
            query.path(),
            "/internal/v1/history/transfers/day?limit=7&from=2026-11-01T00:00:00Z"
        );
    }
}
