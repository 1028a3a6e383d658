//! What a caller is told when its request was not carried out.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use postgres_kit::database::{Unavailable, is_away};
use serde_json::json;
use service_kit::problem::Problem;

use crate::bulk::{Counts, LineError};

/// Why one row cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The text is no JSON, or such as cannot be held, as 1e999.
    #[error("cannot be read as JSON: {0}")]
    Malformed(String),
    /// A field is missing, unknown, of the wrong type or of a value that it cannot have.
    #[error("{field}: {detail}")]
    Field {
        /// The field.
        field: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A field names a row that does not exist.
    #[error("{field}: there is no such row")]
    UnknownReference {
        /// The field.
        field: &'static str,
    },
    /// The id is taken by a row of other content.
    #[error("id: there is a row of this id already, with other content")]
    Conflict,
}

impl Rejection {
    /// The field that is wrong, where it is one.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Malformed(_) => None,
            Self::Field { field, .. } => Some(field),
            Self::UnknownReference { field } => Some(field),
            Self::Conflict => Some("id"),
        }
    }
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The row cannot be stored.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The path names no id.
    #[error("{0:?} in the path is not a UUID")]
    PathId(String),
    /// A query parameter is unknown, or has a value that it cannot have.
    #[error("{name}: {detail}")]
    Query {
        /// The parameter.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// A header has a value that it cannot have.
    #[error("{name}: {detail}")]
    Header {
        /// The header.
        name: &'static str,
        /// What is wrong.
        detail: &'static str,
    },
    /// There is no such row.
    #[error("there is no {0} of this id")]
    NotFound(&'static str),
    /// The item has transfers, so it cannot be deleted.
    #[error("the item has transfers: delete those first")]
    HasTransfers,
    /// The body is too long.
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
    /// The body is of another type.
    #[error("the body must be {0}")]
    ContentType(&'static str),
    /// The body broke off.
    #[error("the body could not be read: {0}")]
    Body(String),
    /// There are as many uploads as there may be.
    #[error("as many uploads as this service takes are under way")]
    TooManyUploads,
    /// Some lines of an upload were bad; the others are committed.
    #[error(
        "{} of the lines were rejected; the {} new and {} repeated ones are committed",
        counts.rejected, counts.accepted, counts.repeated
    )]
    Lines {
        /// How many of which.
        counts: Counts,
        /// The first of those that were rejected.
        errors: Vec<LineError>,
    },
    /// The database cannot be reached, or is too slow.
    #[error("the database does not answer")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The database refused what it should not.
    #[error("the database refused a statement")]
    Database(#[source] tokio_postgres::Error),
}

impl ApiError {
    /// The stable type of the problem, and what is wrong in a few words.
    #[must_use]
    pub const fn problem_type(&self) -> (&'static str, &'static str) {
        match self {
            Self::Rejected(Rejection::Malformed(_)) | Self::Body(_) => {
                ("/problems/malformed-body", "The body cannot be read")
            }
            Self::Rejected(Rejection::Field { .. }) => ("/problems/invalid-field", "A field is wrong"),
            Self::Rejected(Rejection::UnknownReference { .. }) => {
                ("/problems/unknown-reference", "A field names a row that does not exist")
            }
            Self::Rejected(Rejection::Conflict) => ("/problems/conflict", "The id is taken"),
            Self::PathId(_) => ("/problems/invalid-path", "The path is wrong"),
            Self::Query { .. } => ("/problems/invalid-query", "The query is wrong"),
            Self::Header { .. } => ("/problems/invalid-header", "A header is wrong"),
            Self::NotFound(_) => ("/problems/not-found", "Not found"),
            Self::HasTransfers => ("/problems/has-transfers", "The item has transfers"),
            Self::TooLarge(_) => ("/problems/too-large", "The body is too long"),
            Self::ContentType(_) => ("/problems/unsupported-media-type", "The body is of another type"),
            Self::Lines { .. } => ("/problems/rejected-lines", "Some lines were rejected"),
            Self::TooManyUploads | Self::Unavailable(_) => {
                ("/problems/unavailable", "The service cannot answer now")
            }
            Self::Database(_) => ("/problems/internal", "The service failed"),
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejection) => rejection.field(),
            Self::PathId(_) => Some("id"),
            Self::Query { name, .. } => Some(name),
            Self::Header { name, .. } => Some(name),
            _ => None,
        }
    }
}

impl From<Unavailable> for ApiError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(Some(Box::new(error)))
    }
}

impl From<tokio_postgres::Error> for ApiError {
    fn from(error: tokio_postgres::Error) -> Self {
        if is_away(&error) { Self::Unavailable(Some(Box::new(error))) } else { Self::Database(error) }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Rejected(Rejection::Malformed(_))
            | Self::PathId(_)
            | Self::Query { .. }
            | Self::Header { .. }
            | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Rejected(Rejection::Field { .. } | Rejection::UnknownReference { .. })
            | Self::Lines { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Rejected(Rejection::Conflict) | Self::HasTransfers => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyUploads | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        match self {
            Self::Unavailable(Some(source)) => {
                tracing::warn!(error = %source, "the database does not answer");
            }
            Self::Database(source) => {
                tracing::error!(error = ?source, "the database refused a statement");
            }
            _ => {}
        }
        if matches!(self, Self::Database(_)) {
            return Problem::internal().response();
        }
        let (kind, title) = self.problem_type();
        let mut problem = Problem::new(self.status_code(), kind, title, self.to_string());
        if let Some(field) = self.field() {
            problem = problem.field(field);
        }
        if let Self::Lines { counts, errors } = self {
            problem = problem
                .member("accepted", counts.accepted)
                .member("repeated", counts.repeated)
                .member("rejected", counts.rejected)
                .member("errors", json!(errors));
        }
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            problem = problem.retry_after(2);
        }
        problem.response()
    }
}
