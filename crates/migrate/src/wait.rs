//! Waits until the database has a schema that this release works on.
//!
//! For orchestrators that start everything at once: a container that waits here, in front of a
//! service, needs no rights but the service's own role and password.

use std::time::Duration;

use postgres_kit::connect::ConnectError;
use postgres_kit::database::{DatabaseSettings, describe};
use postgres_kit::schema::{self, SchemaError};

use crate::{MigrateError, connect};

/// How long to wait between two looks at the database.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long one look may take, including the connection. A server that hangs is asked again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns once this release works on the schema of the database: its own, or one of a newer
/// release that allows it. Until then it logs each new reason why not. It has no time limit: it
/// does not know how long a migration takes.
///
/// # Errors
/// [`MigrateError::Schema`]: the schema is of a newer release that does not allow this one.
pub async fn wait(database: &DatabaseSettings) -> Result<(), MigrateError> {
    let mut logged = String::new();
    loop {
        let reason = match tokio::time::timeout(LOOK_TIMEOUT, look(database)).await {
            Ok(Ok(Ok(_version))) => return Ok(()),
            Ok(Ok(Err(error @ SchemaError::Newer { .. }))) => return Err(error.into()),
            Ok(Ok(Err(SchemaError::Older(found)))) => {
                format!("the database has schema version {found}")
            }
            Ok(Ok(Err(SchemaError::Missing))) => "the database has no schema yet".to_owned(),
            Ok(Ok(Err(SchemaError::Unreadable(error)))) => describe(&error),
            // Before the first migration, the database or the role may not exist.
            Ok(Err(error)) => error.to_string(),
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

async fn look(database: &DatabaseSettings) -> Result<Result<i32, SchemaError>, ConnectError> {
    let client = connect(database, &database.name).await?;
    Ok(schema::check(&client).await)
}
