//! Migrates a database to the schema of this release, from any earlier release or from nothing.
//!
//! Reading order: [`settings`] names the database and the roles' passwords. [`migrate`] creates the
//! database if it does not exist, then the [`roles`], and then applies `migrations/` in order.
//!
//! Invariant: running it twice, or from two places at once, is safe. A session advisory lock
//! serialises the migrations of one database. Roles belong to the whole cluster and are created so
//! that two runs do not collide.

pub mod roles;
pub mod settings;

use postgres_kit::database::{DatabaseSettings, describe};
use postgres_kit::locks::MIGRATE;
use postgres_kit::schema;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::settings::RoleSettings;

mod embedded {
    refinery::embed_migrations!("../../migrations");
}

/// The result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Whether the database was created.
    pub created: bool,
    /// The applied migrations, oldest first, such as `V1__events`; empty if the schema was up to
    /// date.
    pub applied: Vec<String>,
    /// The schema version now.
    pub version: i32,
}

/// Why a database could not be migrated. Migrations that were applied before stay.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres refuses the superuser, or does not answer.
    #[error("cannot connect to Postgres at {address}")]
    Connect {
        /// The address and the role tried.
        address: String,
        /// The error of the client library.
        source: tokio_postgres::Error,
    },
    /// A password is empty.
    #[error("{0} is empty: set it, because a role without a password cannot connect")]
    EmptyPassword(&'static str),
    /// A statement failed.
    #[error("{doing} failed")]
    Statement {
        /// What was attempted.
        doing: &'static str,
        /// The error of Postgres.
        source: tokio_postgres::Error,
    },
    /// A migration failed, or the applied migrations are not those of this release.
    #[error("the migrations could not be applied: {0}")]
    Migration(#[from] refinery::Error),
    /// A newer release migrated the database.
    #[error(
        "the database has schema version {found}, but this release ends at {known}: run `migrate` of a newer release"
    )]
    Newer {
        /// The version found.
        found: i32,
        /// The last version known.
        known: i32,
    },
}

/// Creates `database` if it does not exist, then the roles, and applies the missing migrations.
///
/// # Errors
/// [`MigrateError`], which names what was attempted.
pub async fn migrate(
    database: &DatabaseSettings,
    roles: &RoleSettings,
) -> Result<Migration, MigrateError> {
    let (mut client, created) = connect_or_create(database).await?;
    // Held until the session ends, so that a crash releases it. Another run may be applying a long
    // migration, so there is no time limit.
    let lock = format!("SELECT pg_advisory_lock({}, {})", MIGRATE.class, MIGRATE.purpose);
    statement(&client, "waiting for another migrate to finish", &lock).await?;
    roles::ensure(&client, roles).await?;
    let found = schema::version(&client).await.map_err(|source| MigrateError::Statement {
        doing: "reading the schema version",
        source,
    })?;
    if let Some(found) = found.filter(|found| *found > schema::VERSION) {
        return Err(MigrateError::Newer { found, known: schema::VERSION });
    }
    let report = embedded::migrations::runner().run_async(&mut client).await?;
    let applied = report.applied_migrations().iter().map(ToString::to_string).collect();
    Ok(Migration { created, applied, version: schema::VERSION })
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
                // Another run created it between our two connections. The error depends on whether
                // the other run had committed.
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
            let client = connect(database, &database.name)
                .await
                .map_err(|error| refused(database, error))?;
            Ok((client, created))
        }
        Err(error) => Err(refused(database, error)),
    }
}

fn refused(database: &DatabaseSettings, source: tokio_postgres::Error) -> MigrateError {
    let DatabaseSettings { host, port, user, .. } = database;
    MigrateError::Connect { address: format!("{host}:{port} as {user}"), source }
}

async fn connect(database: &DatabaseSettings, name: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = database.connection("migrate");
    let (client, connection) = config.dbname(name).connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = describe(&error), "the connection to Postgres ended");
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
