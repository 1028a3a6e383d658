//! Waits until the database has the schema of this release.
//!
//! For orchestrators that start everything at once: a container that waits here, in front of a
//! service, needs no rights but the service's own role and password.

use std::time::Duration;

use postgres_kit::database::{DatabaseSettings, describe};
use postgres_kit::schema;

use crate::{MigrateError, connect, newer};

/// How long to wait between two looks at the database.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long one look may take, including the connection. A server that hangs is asked again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns once the database has the schema of this release. Until then it logs each new reason why
/// not. It has no time limit: it does not know how long a migration takes.
///
/// # Errors
/// [`MigrateError::Newer`]: the schema is of a newer release, and no migration of this one follows.
pub async fn wait(database: &DatabaseSettings) -> Result<(), MigrateError> {
    let mut logged = String::new();
    loop {
        let reason = match tokio::time::timeout(LOOK_TIMEOUT, look(database)).await {
            Ok(Ok(Some(schema::VERSION))) => return Ok(()),
            Ok(Ok(Some(found))) if found > schema::VERSION => return Err(newer(found)),
            Ok(Ok(Some(found))) => format!("the database has schema version {found}"),
            Ok(Ok(None)) => "the database has no schema yet".to_owned(),
            // Before the first migration, the database or the role may not exist.
            Ok(Err(reason)) => reason,
            Err(_elapsed) => format!("no answer within {} s", LOOK_TIMEOUT.as_secs()),
        };
        if reason != logged {
            let needed = schema::VERSION;
            tracing::info!(reason, "waiting for migrate, until the schema version is {needed}");
            logged = reason;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The schema version, or why it cannot be read.
async fn look(database: &DatabaseSettings) -> Result<Option<i32>, String> {
    let connected = connect(database, &database.name).await;
    let client = connected.map_err(|error| error.to_string())?;
    schema::version(&client).await.map_err(|error| describe(&error))
}
