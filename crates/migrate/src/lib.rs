//! Migrates a database to the schema of this release, from any earlier release or from nothing. It
//! leaves a newer schema alone if that allows this release.
//!
//! Reading order: [`settings`] names the database and the roles' passwords. [`migrate`] creates the
//! database if it does not exist, then the [`roles`]. As the owner of the tables, it applies
//! `migrations/` in order. Then it limits the [`rights`] in the database. [`wait()`] is for those
//! who must not start before.
//!
//! Invariant: running it twice, or from two places at once, is safe. A session advisory lock
//! serialises the migrations of one database. Roles belong to the whole cluster and are created so
//! that two runs do not collide.

pub mod rights;
mod roles;
pub mod settings;
mod wait;

use postgres_kit::connect::ConnectError;
use postgres_kit::database::{DatabaseSettings, describe};
use postgres_kit::locks::MIGRATE;
use postgres_kit::schema::{self, SchemaError};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::rights::Gap;
use crate::settings::RoleSettings;
pub use crate::wait::wait;

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
    /// The schema version now. It is newer than that of this release if a newer one has migrated
    /// the database before.
    pub version: i32,
    /// The rights that every role has, because this run could not revoke them.
    pub gaps: Vec<Gap>,
}

/// Why a database could not be migrated. Migrations that were applied before stay.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres refuses the role, or does not answer.
    #[error("cannot connect to Postgres as {user}")]
    Connect {
        /// The role tried.
        user: String,
        /// What became of each address.
        source: ConnectError,
    },
    /// A password is empty.
    #[error("{0} is empty: set it, because a role without a password cannot connect")]
    EmptyPassword(&'static str),
    /// The lock of `migrate` is closed to this role.
    #[error(
        "this role may not take the lock of migrate, because a superuser has migrated the database: \
         as a superuser, make it a member of newcycle_owner"
    )]
    LockRefused,
    /// The owner and stats-notifier may not take their locks, so nothing could be counted.
    #[error(
        "newcycle_owner and newcycle_notifier may not call pg_advisory_lock(integer, integer) and the \
         functions like it: run `migrate` once as a superuser, which grants them"
    )]
    LocksRefused,
    /// The owner may not create tables, and this role may not allow it.
    #[error(
        "newcycle_owner may not create tables in the schema public: as the owner of the database or a \
         superuser, GRANT USAGE, CREATE ON SCHEMA public TO newcycle_owner"
    )]
    SchemaClosed,
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
    /// The schema cannot be read, or is of a newer release that does not allow this one.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Creates `database` if it does not exist, then the roles, applies the missing migrations, and
/// limits the rights of all other roles.
///
/// # Errors
/// [`MigrateError`], which names what was attempted.
pub async fn migrate(
    database: &DatabaseSettings,
    roles: &RoleSettings,
) -> Result<Migration, MigrateError> {
    roles.check()?;
    let (mut client, created) = connect_or_create(database).await?;
    // Held until the session ends, so that a crash releases it. Another run may be applying a long
    // migration, so there is no time limit.
    let lock = format!("SELECT pg_advisory_lock({}, {})", MIGRATE.class, MIGRATE.purpose);
    client.batch_execute(&lock).await.map_err(|source| match source.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => MigrateError::LockRefused,
        _ => MigrateError::Statement { doing: "waiting for another migrate to finish", source },
    })?;
    roles::ensure_owner(&client).await?;
    roles::ensure(&client, roles).await?;
    rights::open_schema(&client).await?;
    rights::become_owner(&client).await?;
    let (version, applied) = match schema::check(&client).await {
        // After a return to an older release, nothing is missing. It does not know the newer files.
        Ok(newer) if newer > schema::VERSION => (newer, Vec::new()),
        Err(error @ (SchemaError::Newer { .. } | SchemaError::Unreadable(_))) => {
            return Err(error.into());
        }
        // If nothing is missing either, this compares the applied files with those of this release.
        Ok(_) | Err(SchemaError::Missing | SchemaError::Older(_)) => {
            let report = embedded::migrations::runner().run_async(&mut client).await?;
            let applied = report.applied_migrations().iter().map(ToString::to_string).collect();
            (schema::VERSION, applied)
        }
    };
    rights::reset_role(&client).await?;
    let gaps = rights::limit(&client, &database.name).await?;
    Ok(Migration { created, applied, version, gaps })
}

async fn connect_or_create(database: &DatabaseSettings) -> Result<(Client, bool), MigrateError> {
    match connect(database, &database.name).await {
        Ok(client) => Ok((client, false)),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_DATABASE) => {
            let maintenance =
                connect(database, "postgres").await.map_err(|error| refused(database, error))?;
            roles::ensure_owner(&maintenance).await?;
            let name = roles::identifier(&database.name);
            let create = format!("CREATE DATABASE {name} OWNER {}", roles::OWNER);
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

fn refused(database: &DatabaseSettings, source: ConnectError) -> MigrateError {
    MigrateError::Connect { user: database.user.clone(), source }
}

async fn connect(database: &DatabaseSettings, name: &str) -> Result<Client, ConnectError> {
    let mut config = database.connection("migrate");
    let (client, connection) = database.connect(config.dbname(name)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = describe(&error), "the connection to Postgres ended");
        }
    });
    Ok(client)
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
