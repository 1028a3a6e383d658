//! Answers requests that fail, as RFC 9457 problem details.
//!
//! The layers below have errors of their own, which know nothing of HTTP. `ApiError::kind` is the
//! one place that gives each of them its status and its problem type. Answers of 5xx never show
//! what failed inside: it is logged here.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde_json::Value;
use service_kit::problem::Problem;

use crate::body::BodyError;
use crate::bulk::{UploadError, UploadReport};
use crate::page::QueryError;
use crate::rejection::Rejection;
use crate::store::StoreError;

/// Clients are asked to wait this long before they repeat a request that was answered with 503.
const RETRY_AFTER_SECONDS: u64 = 2;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The row of a request was refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Some lines of an upload were refused; the others are committed.
    #[error(
        "{} lines were rejected; the {} new and {} repeated lines are committed",
        .0.counts.rejected, .0.counts.accepted, .0.counts.repeated
    )]
    RejectedLines(UploadReport),
    /// The path has no UUID where it must have one.
    #[error("{0:?} in the path is not a UUID")]
    PathId(String),
    /// A query parameter is wrong.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A header is wrong.
    #[error("{name}: {detail}")]
    Header {
        /// The name of the header.
        name: &'static str,
        /// What is wrong, in words that follow the name of the header.
        detail: &'static str,
    },
    /// The body has another media type than those named here.
    #[error("the body must be {0}")]
    MediaType(&'static str),
    /// The body could not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The maximum number of concurrent uploads is reached.
    #[error("too many uploads are in progress")]
    TooManyUploads,
    /// The database did not do what it was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooMany => Self::TooManyUploads,
            UploadError::Body(error) => Self::Body(error),
            UploadError::Store(error) => Self::Store(error),
        }
    }
}

/// A kind of problem, as clients see it.
struct ProblemKind {
    status: StatusCode,
    /// The `type`, which is stable: programs compare it.
    uri: &'static str,
    /// The `title`, for people.
    title: &'static str,
}

impl ProblemKind {
    const fn new(status: StatusCode, uri: &'static str, title: &'static str) -> Self {
        Self { status, uri, title }
    }
}

impl ApiError {
    const fn kind(&self) -> ProblemKind {
        use StatusCode as Status;
        match self {
            Self::Rejected(Rejection::Malformed(_))
            | Self::Body(
                BodyError::Broken(_) | BodyError::Idle(_) | BodyError::Late(_) | BodyError::TooSlow(_),
            ) => ProblemKind::new(Status::BAD_REQUEST, "/problems/malformed-body", "The body cannot be read"),
            Self::PathId(_) => {
                ProblemKind::new(Status::BAD_REQUEST, "/problems/invalid-path", "The path is wrong")
            }
            Self::Query(_) => {
                ProblemKind::new(Status::BAD_REQUEST, "/problems/invalid-query", "A query parameter is wrong")
            }
            Self::Header { .. } => {
                ProblemKind::new(Status::BAD_REQUEST, "/problems/invalid-header", "A header is wrong")
            }
            Self::Store(StoreError::NotFound(_)) => {
                ProblemKind::new(Status::NOT_FOUND, "/problems/not-found", "Not found")
            }
            Self::Rejected(Rejection::Conflict) => {
                ProblemKind::new(Status::CONFLICT, "/problems/conflict", "The id is taken")
            }
            Self::Store(StoreError::HasTransfers) => {
                ProblemKind::new(Status::CONFLICT, "/problems/has-transfers", "The item has transfers")
            }
            Self::Body(BodyError::TooLong(_)) => {
                ProblemKind::new(Status::PAYLOAD_TOO_LARGE, "/problems/too-large", "The body is too long")
            }
            Self::MediaType(_) => ProblemKind::new(
                Status::UNSUPPORTED_MEDIA_TYPE,
                "/problems/unsupported-media-type",
                "The media type of the body is not supported",
            ),
            Self::Rejected(Rejection::Field { .. }) => {
                ProblemKind::new(Status::UNPROCESSABLE_ENTITY, "/problems/invalid-field", "A field is wrong")
            }
            Self::Rejected(Rejection::UnknownReference { .. }) => ProblemKind::new(
                Status::UNPROCESSABLE_ENTITY,
                "/problems/unknown-reference",
                "A field refers to a row that does not exist",
            ),
            Self::RejectedLines(_) => ProblemKind::new(
                Status::UNPROCESSABLE_ENTITY,
                "/problems/rejected-lines",
                "Some lines were rejected",
            ),
            Self::Store(StoreError::Refused(_) | StoreError::Unreadable { .. }) => {
                ProblemKind::new(Status::INTERNAL_SERVER_ERROR, "/problems/internal", "The service failed")
            }
            Self::TooManyUploads | Self::Store(StoreError::Away(_) | StoreError::Contended) => {
                ProblemKind::new(
                    Status::SERVICE_UNAVAILABLE,
                    "/problems/unavailable",
                    "The service cannot answer now",
                )
            }
        }
    }

    /// The field, parameter or header that is wrong, if one is.
    fn field(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejection) => rejection.field(),
            Self::PathId(_) => Some("id"),
            Self::Query(QueryError { name, .. }) => Some(name),
            Self::Header { name, .. } => Some(name),
            Self::RejectedLines(_)
            | Self::MediaType(_)
            | Self::Body(_)
            | Self::TooManyUploads
            | Self::Store(_) => None,
        }
    }

    /// Logs what operators must know of: the client sees only that the service failed.
    fn log(&self) {
        match self {
            Self::Store(StoreError::Away(source)) => {
                tracing::warn!(error = %source, "the database does not answer");
            }
            Self::Store(StoreError::Refused(source)) => {
                tracing::error!(error = ?source, "the database refused a statement");
            }
            Self::Store(StoreError::Unreadable { column, source }) => {
                tracing::error!(column, error = %source, "a stored row cannot be read");
            }
            _ => {}
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.kind().status
    }

    fn error_response(&self) -> HttpResponse {
        self.log();
        let ProblemKind { status, uri, title } = self.kind();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            return Problem::internal().response();
        }
        let mut problem = Problem::new(status, uri, title, self.to_string());
        if let Some(field) = self.field() {
            problem = problem.field(field);
        }
        if let Self::RejectedLines(report) = self
            && let Ok(Value::Object(members)) = serde_json::to_value(report)
        {
            problem =
                members.into_iter().fold(problem, |problem, (name, value)| problem.member(&name, value));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            problem = problem.retry_after(RETRY_AFTER_SECONDS);
        }
        problem.response()
    }
}
