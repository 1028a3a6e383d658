//! What a client is told when it gets no numbers.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use domain::{UnknownTimeUnit, UnknownTopic};
use service_kit::problem::Problem;
use statistics_stream::{InvalidSelection, StreamError};

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The path's last part is no unit.
    #[error(transparent)]
    Unit(#[from] UnknownTimeUnit),
    /// A `topic` is none.
    #[error(transparent)]
    Topic(#[from] UnknownTopic),
    /// The topics cannot be asked for together.
    #[error(transparent)]
    Selection(#[from] InvalidSelection),
    /// A query parameter has a value that it cannot have.
    #[error("{name}={value:?}: {expected}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
    /// There is no such query parameter here.
    #[error("there is no query parameter {name:?} here; there are: {known}")]
    UnknownParameter {
        /// Its name.
        name: String,
        /// Those that there are.
        known: &'static str,
    },
    /// A query parameter is there more than once, and it is not said which is meant.
    #[error("{0} is there more than once")]
    Repeated(String),
    /// The query cannot be parsed.
    #[error("the query cannot be parsed: {0}")]
    Query(String),
    /// Nothing that the client accepts can be had.
    #[error("text/event-stream, application/json and text/csv can be had here, not {0}")]
    NotAcceptable(String),
    /// No upstream has answered yet.
    #[error("there are no numbers yet: no upstream has answered since this service started")]
    NoData,
    /// No more streams are opened.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl ApiError {
    /// The stable type of the problem.
    #[must_use]
    pub const fn problem_type(&self) -> &'static str {
        match self {
            Self::Unit(_) => "/problems/unknown-unit",
            Self::Topic(_) => "/problems/unknown-topic",
            Self::Selection(_)
            | Self::Parameter { .. }
            | Self::UnknownParameter { .. }
            | Self::Repeated(_)
            | Self::Query(_) => "/problems/invalid-query",
            Self::NotAcceptable(_) => "/problems/not-acceptable",
            Self::NoData | Self::Stream(_) => "/problems/unavailable",
        }
    }

    /// What is wrong, in a word.
    const fn title(&self) -> &'static str {
        match self {
            Self::Unit(_) => "Unknown unit",
            Self::Topic(_) => "Unknown topic",
            Self::Selection(_)
            | Self::Parameter { .. }
            | Self::UnknownParameter { .. }
            | Self::Repeated(_)
            | Self::Query(_) => "Invalid query",
            Self::NotAcceptable(_) => "Not acceptable",
            Self::NoData | Self::Stream(_) => "The service cannot answer now",
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Unit(_) => Some("unit"),
            Self::Topic(_) | Self::Selection(InvalidSelection::Empty | InvalidSelection::Twice(_)) => {
                Some("topic")
            }
            Self::Selection(InvalidSelection::NoWindow) => Some("last"),
            Self::Parameter { name, .. } => Some(name),
            Self::UnknownParameter { name, .. } | Self::Repeated(name) => Some(name),
            Self::Query(_) | Self::NotAcceptable(_) | Self::NoData | Self::Stream(_) => None,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unit(_) => StatusCode::NOT_FOUND,
            Self::Topic(_)
            | Self::Selection(_)
            | Self::Parameter { .. }
            | Self::UnknownParameter { .. }
            | Self::Repeated(_)
            | Self::Query(_) => StatusCode::BAD_REQUEST,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::NoData | Self::Stream(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut problem =
            Problem::new(self.status_code(), self.problem_type(), self.title(), self.to_string());
        if let Some(field) = self.field() {
            problem = problem.field(field);
        }
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            problem = problem.retry_after(2);
        }
        problem.response()
    }
}
