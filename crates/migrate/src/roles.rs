//! The roles that the services connect as: one each, so that Postgres enforces who writes what.
//!
//! Roles belong to the whole cluster, while an advisory lock belongs to one database: two databases of a
//! cluster may be migrated at once, and then both make the same role. Whoever loses that race finds the role
//! made and goes on.

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::MigrateError;
use crate::settings::RoleSettings;

/// How often a collision with another database's migrate is tolerated; each time, one of the two got on.
const ATTEMPTS: usize = 20;

/// Makes the roles where they are missing, and sets their passwords.
///
/// # Errors
/// [`MigrateError`] for an empty password, or where Postgres refuses.
pub async fn ensure(client: &Client, roles: &RoleSettings) -> Result<(), MigrateError> {
    ensure_one(client, "newcycle_ingest", "roles.ingest_password", &roles.ingest_password).await?;
    ensure_one(client, "newcycle_notifier", "roles.notifier_password", &roles.notifier_password).await
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
    // The verifier rather than the password, so that a statement in the server's log gives nothing away. It
    // consists of base64, `$` and `:`.
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
            Err(source) => return Err(MigrateError::Statement { doing: "making the roles", source }),
        }
    }
    Ok(())
}

/// Whether two sessions wrote the same row of the catalog at once: both found the role missing, or both set
/// its password, which Postgres reports as an internal error, "tuple concurrently updated".
fn is_collision(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::UNIQUE_VIOLATION | &SqlState::INTERNAL_ERROR))
}

/// Quotes a name as SQL wants it.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
