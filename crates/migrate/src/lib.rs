//! Brings a database to the schema of this release, from whatever release it is at, or from nothing.
//!
//! Reading order: [`settings`] say which database and whose passwords; [`migrate`] makes the database where it
//! is missing, then the [`roles`], then applies `migrations/` in order.
//!
//! Invariant: running it twice, or from two places at once, is safe. One session advisory lock lets one
//! migrate a database at a time; roles, which all databases of a cluster share, are made so that two at once
//! do not collide.

pub mod roles;
pub mod settings;

use postgres_kit::database::DatabaseSettings;
use postgres_kit::locks::MIGRATE;
use postgres_kit::schema;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::settings::RoleSettings;

mod embedded {
    refinery::embed_migrations!("../../migrations");
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the database was created.
    pub created: bool,
    /// The migrations applied, oldest first, as `V1__events`; empty where the schema was up to date.
    pub applied: Vec<String>,
    /// The schema's version now.
    pub version: i32,
}

/// Why a database could not be migrated. What was applied before stays, each migration whole.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres does not let the bootstrap user in, or does not answer.
    #[error("cannot connect to Postgres at {host}:{port} as {user}: {source}")]
    Connect {
        /// The address tried.
        host: String,
        /// The port tried.
        port: u16,
        /// The role tried.
        user: String,
        /// What the client library says.
        source: tokio_postgres::Error,
    },
    /// A password is empty.
    #[error("{0} is empty: set it, for without a password a role cannot connect")]
    EmptyPassword(&'static str),
    /// A statement failed.
    #[error("{doing}: {source}")]
    Statement {
        /// What was attempted.
        doing: &'static str,
        /// What Postgres says.
        source: tokio_postgres::Error,
    },
    /// A migration failed, or those applied are not those of this release.
    #[error("the migrations could not be applied: {0}")]
    Migration(#[from] refinery::Error),
    /// A newer release has been here.
    #[error(
        "the database has schema version {found}, this release ends at {known}: run `migrate` of a newer release"
    )]
    Newer {
        /// The version found.
        found: i32,
        /// The last version known.
        known: i32,
    },
}

/// Makes `database` where it is missing, the roles, and applies the migrations that are not there yet.
///
/// # Errors
/// [`MigrateError`], which says what was attempted.
pub async fn migrate(database: &DatabaseSettings, roles: &RoleSettings) -> Result<Outcome, MigrateError> {
    let (mut client, created) = connect_or_create(database).await?;
    // Held until the session ends, so that a crash lets go of it. The other one may be at a long migration, so
    // there is no deadline.
    let lock = format!("SELECT pg_advisory_lock({}, {})", MIGRATE.class, MIGRATE.purpose);
    statement(&client, "waiting for another migrate to finish", &lock).await?;
    roles::ensure(&client, roles).await?;
    let found = schema::version(&client)
        .await
        .map_err(|source| MigrateError::Statement { doing: "reading the schema version", source })?;
    if let Some(found) = found.filter(|found| *found > schema::VERSION) {
        return Err(MigrateError::Newer { found, known: schema::VERSION });
    }
    let report = embedded::migrations::runner().run_async(&mut client).await?;
    let applied = report.applied_migrations().iter().map(ToString::to_string).collect();
    Ok(Outcome { created, applied, version: schema::VERSION })
}

async fn connect_or_create(database: &DatabaseSettings) -> Result<(Client, bool), MigrateError> {
    match connect(database, &database.name).await {
        Ok(client) => Ok((client, false)),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_DATABASE) => {
            let maintenance =
                connect(database, "postgres").await.map_err(|error| refused(database, error))?;
            let create = format!("CREATE DATABASE {}", roles::identifier(&database.name));
            let created = match maintenance.batch_execute(&create).await {
                Ok(()) => true,
                // Another migrate made it between our two connections. Which of the two errors comes depends on
                // whether it had committed.
                Err(error)
                    if matches!(
                        error.code(),
                        Some(&SqlState::DUPLICATE_DATABASE | &SqlState::UNIQUE_VIOLATION)
                    ) =>
                {
                    false
                }
                Err(source) => {
                    return Err(MigrateError::Statement { doing: "creating the database", source });
                }
            };
            let client = connect(database, &database.name).await.map_err(|error| refused(database, error))?;
            Ok((client, created))
        }
        Err(error) => Err(refused(database, error)),
    }
}

fn refused(database: &DatabaseSettings, source: tokio_postgres::Error) -> MigrateError {
    let DatabaseSettings { host, port, user, .. } = database;
    MigrateError::Connect { host: host.clone(), port: *port, user: user.clone(), source }
}

async fn connect(database: &DatabaseSettings, name: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = database.connection("migrate");
    let (client, connection) = config.dbname(name).connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "the connection to Postgres ended");
        }
    });
    Ok(client)
}

async fn statement(client: &Client, doing: &'static str, sql: &str) -> Result<(), MigrateError> {
    client.batch_execute(sql).await.map_err(|source| MigrateError::Statement { doing, source })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_services_expect_the_newest_migration() {
        let runner = super::embedded::migrations::runner();
        let newest = runner.get_migrations().iter().map(refinery::Migration::version).max();
        assert_eq!(newest, Some(postgres_kit::schema::VERSION));
    }
}
