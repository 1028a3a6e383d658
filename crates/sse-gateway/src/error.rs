//! What a client is told when it gets no numbers.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use domain::{BucketTime, Topic, UnknownTimeUnit, UnknownTopic};
use service_kit::problem::Problem;
use statistics_stream::history::{InvalidQuery, NOT_KEPT};
use statistics_stream::{InvalidSelection, StreamError};

use crate::request::Form;

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
        expected: String,
    },
    /// Parameters of a live window stand beside those of a period.
    #[error(
        "last, payload and heartbeat are of the live window; from, to and limit are of a period, which needs from or to"
    )]
    Mixed,
    /// A period ends before it begins.
    #[error("from={from} is later than to={to}")]
    Backwards {
        /// Where it should begin.
        from: BucketTime,
        /// Where it should end.
        to: BucketTime,
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
    #[error("{} can be had here, not {accepted}", media_types(forms))]
    NotAcceptable {
        /// What it accepts.
        accepted: String,
        /// What can be had.
        forms: &'static [Form],
    },
    /// The unit gave up the counts of that time.
    #[error("{topic} is kept since {kept_since}: ask from then on, or a longer unit for what was before")]
    NotKept {
        /// What was asked for.
        topic: Topic,
        /// Since when there is any.
        kept_since: BucketTime,
    },
    /// No upstream answers.
    #[error("no upstream answers with history just now")]
    NoHistory,
    /// What a gateway asked for makes no sense.
    #[error(transparent)]
    Internal(#[from] InvalidQuery),
    /// No upstream has answered yet.
    #[error("there are no numbers yet: no upstream has answered since this service started")]
    NoData,
    /// No more streams are opened.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl ApiError {
    /// The stable type of the problem, and what is wrong in a few words.
    #[must_use]
    pub const fn problem_type(&self) -> (&'static str, &'static str) {
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
            Self::NotAcceptable { .. } => ("/problems/not-acceptable", "Not acceptable"),
            Self::NotKept { .. } => (NOT_KEPT, "Not kept any more"),
            Self::NoData | Self::NoHistory | Self::Stream(_) => {
                ("/problems/unavailable", "The service cannot answer now")
            }
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
            Self::NotKept { .. } | Self::Backwards { .. } => Some("from"),
            Self::Query(_)
            | Self::Internal(_)
            | Self::Mixed
            | Self::NotAcceptable { .. }
            | Self::NoData
            | Self::NoHistory
            | Self::Stream(_) => None,
        }
    }
}

fn media_types(forms: &[Form]) -> String {
    let names = forms.iter().map(|form| form.media_type()).map(|(kind, subtype)| format!("{kind}/{subtype}"));
    names.collect::<Vec<_>>().join(", ")
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
            | Self::Mixed
            | Self::Backwards { .. }
            | Self::Query(_)
            | Self::Internal(_) => StatusCode::BAD_REQUEST,
            Self::NotAcceptable { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::NotKept { .. } => StatusCode::GONE,
            Self::NoData | Self::NoHistory | Self::Stream(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
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
