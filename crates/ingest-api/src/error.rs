//! Answers requests that fail, as RFC 9457 problem details.
//!
//! The layers below have errors of their own, which do not depend on HTTP. `ApiError::status_code`
//! is the one place that decides whether an error becomes a 400, a 422 or a 503, and
//! `ApiError::problem_type` gives it its type. A 5xx does not show what failed: this is logged
//! here.

use access_kit::refusal::Refusal;
use actix_web::http::header::{ACCEPT_ENCODING, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{HttpResponse, ResponseError};
use serde_json::Value;
use service_kit::failure::SharedFailureLog;
use service_kit::problem::Problem;

use crate::array::BrokenArray;
use crate::body::BodyError;
use crate::bulk::UploadError;
use crate::encoding::ContentCoding;
use crate::page::QueryError;
use crate::rejection::Rejection;
use crate::report::{LineCounts, UploadReport};
use crate::store::DatabaseError;

/// Clients are asked to wait this long before they repeat a request that was answered with 503.
const RETRY_AFTER_SECONDS: u64 = 2;

/// The outages of the database, which all requests notice.
static OUTAGE: SharedFailureLog = SharedFailureLog::new();

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
    /// The id in the path is not a UUID.
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
    /// The body is not of a media type that this path takes. Holds the names of these.
    #[error("the body must be {0}")]
    MediaType(&'static str),
    /// The body is compressed in a way that the service does not support.
    #[error("Content-Encoding must be one of gzip and zstd, once, or be left out")]
    ContentCoding,
    /// The body could not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// An upload could not be read to its end. The lines that are counted are done with.
    #[error("{error}; {} new and {} repeated lines are committed", .counts.accepted, .counts.repeated)]
    BrokenUpload {
        /// Why.
        error: BodyError,
        /// The outcomes of the lines before.
        counts: LineCounts,
    },
    /// An array does not end where the body does. The elements before are done with.
    #[error(
        "{error}; {} new and {} repeated elements are committed",
        .report.counts.accepted, .report.counts.repeated
    )]
    BrokenArray {
        /// Which element could not be read, and why.
        error: BrokenArray,
        /// The outcomes of the elements before, and of this one.
        report: UploadReport,
    },
    /// Other uploads have all memory, or had all places to commit.
    #[error("too many uploads are in progress")]
    TooManyUploads,
    /// The maximum number of uploads with zstd is reached.
    #[error("too many uploads with zstd are in progress; others are accepted")]
    TooManyZstdUploads,
    /// The key has its share already, or has ended during the upload.
    #[error(transparent)]
    Access(#[from] Refusal),
    /// The database did not do what it was asked.
    #[error(transparent)]
    Store(#[from] DatabaseError),
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooMany => Self::TooManyUploads,
            UploadError::TooManyZstd => Self::TooManyZstdUploads,
            UploadError::Access(refusal) => Self::Access(refusal),
            UploadError::Array { error, report } => Self::BrokenArray { error, report },
            UploadError::Body { error, counts } => Self::BrokenUpload { error, counts },
            UploadError::Store(error) => Self::Store(error),
        }
    }
}

/// What kind of problem it is, as clients see it.
struct ProblemType {
    /// The `type`, which is stable: programs compare it.
    uri: &'static str,
    /// The `title`, for people.
    title: &'static str,
}

impl ProblemType {
    const fn new(uri: &'static str, title: &'static str) -> Self {
        Self { uri, title }
    }
}

const UNAVAILABLE: ProblemType =
    ProblemType::new("/problems/unavailable", "The service cannot answer now");

impl ApiError {
    const fn problem_type(&self) -> ProblemType {
        match self {
            Self::Body(BodyError::TooLong(_)) => {
                ProblemType::new("/problems/too-large", "The body is too long")
            }
            Self::Body(error) | Self::BrokenUpload { error, .. } if error.is_in_transit() => {
                ProblemType::new("/problems/incomplete-body", "The body did not arrive")
            }
            Self::Body(BodyError::TooCompressed(_))
            | Self::BrokenUpload { error: BodyError::TooCompressed(_), .. } => {
                ProblemType::new("/problems/too-compressed", "The body is compressed too much")
            }
            Self::Body(BodyError::NoDecoder) => UNAVAILABLE,
            Self::Rejected(Rejection::Malformed(_))
            | Self::Body(_)
            | Self::BrokenUpload { .. }
            | Self::BrokenArray { .. } => {
                ProblemType::new("/problems/malformed-body", "The body cannot be read")
            }
            Self::PathId(_) => ProblemType::new("/problems/invalid-path", "The path is wrong"),
            Self::Query(_) => {
                ProblemType::new("/problems/invalid-query", "A query parameter is wrong")
            }
            Self::Header { .. } => {
                ProblemType::new("/problems/invalid-header", "A header is wrong")
            }
            Self::Store(DatabaseError::NotFound(_)) => {
                ProblemType::new("/problems/not-found", "Not found")
            }
            Self::Rejected(Rejection::Conflict) => {
                ProblemType::new("/problems/conflict", "The id is taken")
            }
            Self::Store(DatabaseError::HasTransfers) => {
                ProblemType::new("/problems/has-transfers", "The item has transfers")
            }
            Self::MediaType(_) => ProblemType::new(
                "/problems/unsupported-media-type",
                "The media type of the body is not supported",
            ),
            Self::ContentCoding => ProblemType::new(
                "/problems/unsupported-content-encoding",
                "The content coding of the body is not supported",
            ),
            Self::Rejected(Rejection::Field { .. }) => {
                ProblemType::new("/problems/invalid-field", "A field is wrong")
            }
            Self::Rejected(Rejection::UnknownReference { .. }) => ProblemType::new(
                "/problems/unknown-reference",
                "A field refers to a row that does not exist",
            ),
            Self::RejectedLines(_) => {
                ProblemType::new("/problems/rejected-lines", "Some lines were rejected")
            }
            Self::Store(DatabaseError::Refused(_) | DatabaseError::Unreadable { .. }) => {
                ProblemType::new("/problems/internal", "The service failed")
            }
            Self::TooManyUploads
            | Self::TooManyZstdUploads
            // It has an answer of its own.
            | Self::Access(_)
            | Self::Store(
                DatabaseError::Away(_)
                | DatabaseError::QueueFull
                | DatabaseError::Contended
                | DatabaseError::Locked,
            ) => UNAVAILABLE,
        }
    }

    /// The field, parameter or header that is wrong, if one is.
    fn field(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejection) => rejection.field(),
            Self::PathId(_) => Some("id"),
            Self::Query(QueryError { name, .. }) => Some(name),
            Self::Header { name, .. } => Some(name),
            Self::ContentCoding => Some("Content-Encoding"),
            Self::RejectedLines(_)
            | Self::MediaType(_)
            | Self::Body(_)
            | Self::BrokenUpload { .. }
            | Self::BrokenArray { .. }
            | Self::TooManyUploads
            | Self::TooManyZstdUploads
            | Self::Access(_)
            | Self::Store(_) => None,
        }
    }

    /// Logs why the database failed, because the answer does not show it.
    fn log(&self) {
        match self {
            Self::Store(DatabaseError::Away(source)) => {
                // In an outage, each request fails for the same reason.
                if OUTAGE.should_log() {
                    tracing::warn!(error = %source, "the database does not answer");
                } else {
                    tracing::debug!(error = %source, "the database does not answer");
                }
            }
            Self::Store(DatabaseError::Refused(source)) => {
                tracing::error!(error = ?source, "the database refused a statement");
            }
            Self::Store(DatabaseError::Unreadable { column, source }) => {
                tracing::error!(database.column = column, error = %source, "a stored row cannot be read");
            }
            _ => {}
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            // 413
            Self::Body(BodyError::TooLong(_) | BodyError::TooCompressed(_))
            | Self::BrokenUpload { error: BodyError::TooCompressed(_), .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            // 503
            Self::Body(BodyError::NoDecoder) => StatusCode::SERVICE_UNAVAILABLE,
            // 408: a retry may succeed.
            Self::Body(error) | Self::BrokenUpload { error, .. } if error.is_in_transit() => {
                StatusCode::REQUEST_TIMEOUT
            }
            // 400
            Self::Rejected(Rejection::Malformed(_))
            | Self::PathId(_)
            | Self::Query(_)
            | Self::Header { .. }
            | Self::Body(_)
            | Self::BrokenUpload { .. }
            | Self::BrokenArray { .. } => StatusCode::BAD_REQUEST,
            // 404
            Self::Store(DatabaseError::NotFound(_)) => StatusCode::NOT_FOUND,
            // 409
            Self::Rejected(Rejection::Conflict) | Self::Store(DatabaseError::HasTransfers) => {
                StatusCode::CONFLICT
            }
            // 415
            Self::MediaType(_) | Self::ContentCoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            // 422
            Self::Rejected(Rejection::Field { .. } | Rejection::UnknownReference { .. })
            | Self::RejectedLines(_) => StatusCode::UNPROCESSABLE_ENTITY,
            // 500: a retry fails in the same way.
            Self::Store(DatabaseError::Refused(_) | DatabaseError::Unreadable { .. }) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Access(refusal) => refusal.status_code(),
            // 503: a retry may succeed.
            Self::TooManyUploads
            | Self::TooManyZstdUploads
            | Self::Store(
                DatabaseError::Away(_)
                | DatabaseError::QueueFull
                | DatabaseError::Contended
                | DatabaseError::Locked,
            ) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::Access(refusal) = self {
            return refusal.error_response();
        }
        self.log();
        let status = self.status_code();
        let ProblemType { uri, title } = self.problem_type();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            return Problem::internal().response();
        }
        let mut problem = Problem::new(status, uri, title, self.to_string());
        if let Some(field) = self.field() {
            problem = problem.field(field);
        }
        let members = match self {
            Self::RejectedLines(report) | Self::BrokenArray { report, .. } => {
                serde_json::to_value(report)
            }
            Self::BrokenUpload { counts, .. } => serde_json::to_value(counts),
            _ => Ok(Value::Null),
        };
        if let Ok(Value::Object(members)) = members {
            problem = members
                .into_iter()
                .fold(problem, |problem, (name, value)| problem.member(&name, value));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            problem = problem.retry_after(RETRY_AFTER_SECONDS);
        }
        let mut response = problem.response();
        if matches!(self, Self::ContentCoding) {
            // An answer about the media type must not have it (RFC 9110, section 12.5.3).
            let accepted = HeaderValue::from_static(ContentCoding::ACCEPTED);
            response.headers_mut().insert(ACCEPT_ENCODING, accepted);
        }
        if status == StatusCode::REQUEST_TIMEOUT {
            // The rest of the body may still come (RFC 9110, section 15.5.9).
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }
}
