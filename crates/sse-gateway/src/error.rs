//! Why a request gets no counts, and the problem details (RFC 9457) that it gets instead.

use access_kit::refusal::Refusal;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use domain::{BucketTime, Topic, UnknownTimeUnit, UnknownTopic};
use service_kit::problem::Problem;
use statistics_stream::history::{InvalidHistoryQuery, NOT_KEPT};
use statistics_stream::{InvalidSelection, StreamError};

use crate::media_type::NotAcceptable;

/// Why a request gets no counts.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The last segment of the path is not a unit.
    #[error(transparent)]
    Unit(#[from] UnknownTimeUnit),
    /// A `topic` parameter is not a topic.
    #[error(transparent)]
    Topic(#[from] UnknownTopic),
    /// The topics cannot be selected together.
    #[error(transparent)]
    Selection(#[from] InvalidSelection),
    /// The value of a query parameter is not valid.
    #[error("{name}={value:?}: {expected}")]
    Parameter {
        /// The name of the parameter.
        name: &'static str,
        /// The value in the request.
        value: String,
        /// The values that are valid.
        expected: String,
    },
    /// The query has parameters of the live window and of a history query.
    #[error(
        "last, payload and heartbeat apply to the live window; from, to and limit to a history query, \
         which needs from or to"
    )]
    Mixed,
    /// The period ends before it begins.
    #[error("from={from} is later than to={to}")]
    Backwards {
        /// The requested start.
        from: BucketTime,
        /// The requested end.
        to: BucketTime,
    },
    /// The path has no such query parameter.
    #[error("unknown query parameter {name:?}; this path has: {known}")]
    UnknownParameter {
        /// The name in the request.
        name: String,
        /// The names that the path has.
        known: &'static str,
    },
    /// A query parameter occurs more than once.
    #[error("the query parameter {0} occurs more than once")]
    Repeated(String),
    /// The query string is malformed.
    #[error("the query string is malformed: {0}")]
    Query(String),
    /// The client accepts no media type that the path offers.
    #[error(transparent)]
    NotAcceptable(#[from] NotAcceptable),
    /// The period has expired: the unit does not keep it any more.
    #[error("{topic} is kept since {kept_since}; for earlier counts, use a longer unit")]
    NotKept {
        /// The requested topic.
        topic: Topic,
        /// The oldest time that the unit keeps.
        kept_since: BucketTime,
    },
    /// No upstream answers history queries.
    #[error("no upstream answers history queries now")]
    NoHistory,
    /// A gateway sent a history query that is not valid.
    #[error(transparent)]
    Internal(#[from] InvalidHistoryQuery),
    /// No upstream has sent counts yet.
    #[error("there are no counts yet: no upstream has answered since this service started")]
    NoData,
    /// The hub accepts no more streams.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The client may not read a topic.
    #[error(transparent)]
    Access(#[from] Refusal),
}

impl RequestError {
    /// The stable problem type, and its title.
    const fn problem_type(&self) -> (&'static str, &'static str) {
        match self {
            Self::Unit(_) => ("/problems/unknown-unit", "Unknown unit"),
            Self::Topic(_) => ("/problems/unknown-topic", "Unknown topic"),
            Self::Selection(_)
            | Self::Parameter { .. }
            | Self::UnknownParameter { .. }
            | Self::Repeated(_)
            | Self::Mixed
            | Self::Backwards { .. }
            | Self::Query(_)
            | Self::Internal(_) => ("/problems/invalid-query", "Invalid query"),
            Self::NotAcceptable(_) => ("/problems/not-acceptable", "Not acceptable"),
            Self::NotKept { .. } => (NOT_KEPT, "Not kept any more"),
            Self::NoData | Self::NoHistory | Self::Stream(_) | Self::Access(_) => {
                ("/problems/unavailable", "The service cannot answer now")
            }
        }
    }

    /// The parameter that is wrong, if it is a single one.
    fn field(&self) -> Option<&str> {
        match self {
            Self::Unit(_) => Some("unit"),
            Self::Topic(_) | Self::Selection(_) => Some("topic"),
            Self::Parameter { name, .. } => Some(name),
            Self::UnknownParameter { name, .. } | Self::Repeated(name) => Some(name),
            Self::NotKept { .. } | Self::Backwards { .. } => Some("from"),
            Self::Query(_)
            | Self::Internal(_)
            | Self::Mixed
            | Self::NotAcceptable(_)
            | Self::NoData
            | Self::NoHistory
            | Self::Access(_)
            | Self::Stream(_) => None,
        }
    }
}

impl ResponseError for RequestError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unit(_) => StatusCode::NOT_FOUND,
            Self::Topic(_)
            | Self::Selection(_)
            | Self::Parameter { .. }
            | Self::UnknownParameter { .. }
            | Self::Repeated(_)
            | Self::Mixed
            | Self::Backwards { .. }
            | Self::Query(_)
            | Self::Internal(_) => StatusCode::BAD_REQUEST,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::NotKept { .. } => StatusCode::GONE,
            Self::NoData | Self::NoHistory | Self::Stream(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Access(refusal) => refusal.status_code(),
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::Access(refusal) = self {
            return refusal.error_response();
        }
        let (kind, title) = self.problem_type();
        let mut problem = Problem::new(self.status_code(), kind, title, self.to_string());
        if let Some(field) = self.field() {
            problem = problem.field(field);
        }
        if let Self::NotKept { kept_since, .. } = self {
            problem = problem.member("kept_since", kept_since.to_string());
        }
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            problem = problem.retry_after(2);
        }
        problem.response()
    }
}
