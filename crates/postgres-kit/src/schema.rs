//! The schema version that this release needs. Migrations only ever raise it.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::describe;

/// The newest migration that this release knows.
pub const VERSION: i32 = 3;

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
    /// A newer release migrated it.
    #[error(
        "the database has schema version {0}, but this release ends at {VERSION}: start a newer release"
    )]
    Newer(i32),
    /// The version could not be read.
    #[error("the schema version could not be read: {}", describe(.0))]
    Unreadable(#[from] tokio_postgres::Error),
}

/// The newest migration that ran in this database, or `None` if none has run.
///
/// # Errors
/// Postgres did not answer, or refused.
pub async fn version(client: &Client) -> Result<Option<i32>, tokio_postgres::Error> {
    let newest = "SELECT max(version) FROM public.refinery_schema_history";
    // Unnamed, so that it also works through a pooler.
    match client.query_typed_one(newest, &[]).await {
        Ok(row) => row.try_get(0),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fails if the database's schema is not the one that this release needs.
///
/// # Errors
/// [`SchemaError`], which says what to do.
pub async fn check(client: &Client) -> Result<(), SchemaError> {
    match version(client).await? {
        None => Err(SchemaError::Missing),
        Some(VERSION) => Ok(()),
        Some(version) if version < VERSION => Err(SchemaError::Older(version)),
        Some(version) => Err(SchemaError::Newer(version)),
    }
}
