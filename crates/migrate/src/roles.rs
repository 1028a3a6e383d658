//! The roles that the services connect as, one for each, so that Postgres enforces which service
//! writes what.
//!
//! Roles belong to the whole cluster, but an advisory lock belongs to one database: two databases
//! of a cluster may be migrated at the same time, and then both runs create the same role. The run
//! that loses the race finds the role and continues.

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::MigrateError;
use crate::settings::RoleSettings;

/// How often a collision with the run of another database is tolerated. Each time, one of the two
/// succeeds.
const ATTEMPTS: usize = 20;

/// Creates the roles that do not exist, and sets all passwords.
///
/// # Errors
/// A password is empty, or a statement fails.
pub async fn ensure(client: &Client, roles: &RoleSettings) -> Result<(), MigrateError> {
    ensure_one(client, "newcycle_ingest", "roles.ingest_password", &roles.ingest_password).await?;
    ensure_one(client, "newcycle_notifier", "roles.notifier_password", &roles.notifier_password)
        .await?;
    ensure_one(client, "newcycle_access", "roles.access_password", &roles.access_password).await
}

async fn ensure_one(
    client: &Client,
    role: &str,
    setting: &'static str,
    password: &SecretString,
) -> Result<(), MigrateError> {
    if password.expose_secret().is_empty() {
        return Err(MigrateError::EmptyPassword(setting));
    }
    let role = identifier(role);
    // The verifier instead of the password, so that a statement in the server's log reveals
    // nothing. It consists of base64, `$` and `:`.
    let verifier = postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes());
    let create = format!("CREATE ROLE {role} LOGIN");
    let alter = format!("ALTER ROLE {role} LOGIN PASSWORD '{verifier}'");
    for attempt in 1.. {
        let made = async {
            match client.batch_execute(&create).await {
                Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => {}
                other => other?,
            }
            client.batch_execute(&alter).await
        };
        match made.await {
            Ok(()) => break,
            Err(error) if attempt < ATTEMPTS && is_collision(&error) => {}
            Err(source) => {
                return Err(MigrateError::Statement { doing: "creating the roles", source });
            }
        }
    }
    Ok(())
}

/// Whether two sessions wrote the same row of the catalog at once: both created the role, or both
/// set its password, which Postgres reports as an internal error ("tuple concurrently updated").
fn is_collision(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::UNIQUE_VIOLATION | &SqlState::INTERNAL_ERROR))
}

/// Quotes a name for SQL.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
