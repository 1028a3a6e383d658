//! Which schemas this release works on. Migrations only ever raise the version.
//!
//! A release is known to the database by the newest migration that it has. It works on the schema
//! of that migration. It also works on that of a newer release which allows it: each migration
//! states the oldest release whose programs may still run. So the programs of two releases work on
//! the same database during an upgrade, and after a return to the older one.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::describe;

/// The newest migration that this release knows.
pub const VERSION: i32 = 4;

/// Why this release cannot use the database's schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// No migration has run.
    #[error("the database has no schema yet: run `migrate`, then start again")]
    Missing,
    /// Migrations are missing.
    #[error(
        "the database has schema version {0}, but this release needs {VERSION}: run `migrate` of this release"
    )]
    Older(i32),
    /// A newer release migrated it, and does not allow this one.
    #[error(
        "the database has schema version {found}, which needs programs of schema version {oldest} or newer, \
         but this release ends at {VERSION}: start a newer release"
    )]
    Newer {
        /// The version found.
        found: i32,
        /// The newest migration that a program must have.
        oldest: i32,
    },
    /// The version could not be read.
    #[error("the schema version could not be read: {}", describe(.0))]
    Unreadable(#[from] tokio_postgres::Error),
}

impl SchemaError {
    /// Whether the schema was read and is of no use to this release, so that it does not help to
    /// try again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Missing | Self::Older(_) | Self::Newer { .. } => true,
            Self::Unreadable(_) => false,
        }
    }
}

/// The newest migration that ran in this database, or `None` if none has run.
///
/// # Errors
/// Postgres did not answer, or refused.
pub async fn version(client: &Client) -> Result<Option<i32>, tokio_postgres::Error> {
    number(client, "SELECT max(version) FROM public.refinery_schema_history").await
}

/// Fails if this release does not work on the schema of the database. Returns its version, which
/// may be newer than [`VERSION`].
///
/// # Errors
/// [`SchemaError`], which says what to do.
pub async fn check(client: &Client) -> Result<i32, SchemaError> {
    match version(client).await? {
        None => Err(SchemaError::Missing),
        Some(version) if version < VERSION => Err(SchemaError::Older(version)),
        Some(VERSION) => Ok(VERSION),
        Some(found) => {
            check_newer(client, found).await?;
            Ok(found)
        }
    }
}

/// Fails if a newer schema does not allow the programs of this release.
///
/// # Errors
/// [`SchemaError::Newer`], or Postgres did not answer.
async fn check_newer(client: &Client, found: i32) -> Result<(), SchemaError> {
    // Each migration commits its statement together with itself. If another one is committed after
    // the version was read, its statement counts as well: the answer is then that of the newer
    // schema. All statements count, because a file that expands may follow one that contracts.
    let strictest = format!(
        "SELECT CASE WHEN max(schema_version) >= {found} THEN max(oldest_program) END
         FROM public.schema_compatibility"
    );
    // Without a statement, nothing is known about older releases.
    match number(client, &strictest).await?.unwrap_or(found) {
        oldest if oldest <= VERSION => Ok(()),
        oldest => Err(SchemaError::Newer { found, oldest }),
    }
}

/// The number that a query returns, or `None` if its table does not exist or is empty.
async fn number(client: &Client, query: &str) -> Result<Option<i32>, tokio_postgres::Error> {
    // Unnamed, so that it also works through a pooler.
    match client.query_typed_one(query, &[]).await {
        Ok(row) => row.try_get(0),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}
