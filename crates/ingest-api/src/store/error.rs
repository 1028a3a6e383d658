//! Why the database did not do what it was asked.

use std::sync::Arc;

use postgres_kit::database::{Unavailable, describe, is_away};
use tokio_postgres::error::SqlState;

/// Why rows were not stored, read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// There is no row with the id. Holds the singular name of the row, such as "item".
    #[error("there is no {0} with this id")]
    NotFound(&'static str),
    /// An item cannot be deleted because transfers refer to it.
    #[error("the item has transfers: delete them first")]
    HasTransfers,
    /// The database cannot be reached, does not answer in time, or cannot work now. A retry may
    /// succeed. Shared by all callers whose rows were sent together.
    #[error("the database does not answer")]
    Away(#[source] Arc<Unavailable>),
    /// The maximum number of rows waits to be written. A retry may succeed.
    #[error("too many rows wait to be written")]
    QueueFull,
    /// Other transactions kept deleting and creating the same rows. A retry may succeed.
    #[error("other requests keep changing the same rows")]
    Contended,
    /// Another transaction held a lock for too long. Nothing was stored. A retry may succeed.
    #[error("another transaction has locked the row, or one that it refers to")]
    Locked,
    /// Postgres refused a statement, or the statement could not be sent. A retry fails in the same
    /// way.
    #[error("the database refused a statement")]
    Refused(#[source] tokio_postgres::Error),
    /// A stored row has a value that this service cannot represent. A retry fails in the same way.
    #[error("the column {column:?} of a stored row cannot be read")]
    Unreadable {
        /// The name of the column.
        column: &'static str,
        /// Why its value cannot be converted.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DatabaseError {
    /// What failed, with what the server, the pooler, the resolver or the network reported: for
    /// operators. Clients only get the error itself.
    pub(crate) fn with_report(&self) -> String {
        match self {
            Self::Away(error) => format!("{self}: {error}"),
            Self::Refused(error) => format!("{self}: {}", describe(error)),
            Self::NotFound(_)
            | Self::HasTransfers
            | Self::QueueFull
            | Self::Contended
            | Self::Locked
            | Self::Unreadable { .. } => self.to_string(),
        }
    }
}

impl From<Unavailable> for DatabaseError {
    fn from(error: Unavailable) -> Self {
        Self::Away(Arc::new(error))
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        if is_away(&error) {
            Unavailable::Interrupted(error).into()
        } else if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            Self::Locked
        } else {
            Self::Refused(error)
        }
    }
}
