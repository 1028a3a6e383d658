//! Opens a connection, and limits how long the database may take.

use std::time::Duration;

use postgres_kit::database::{DatabaseSettings, describe};
use tokio_postgres::{Client, Config};
use tokio_util::task::AbortOnDropHandle;

use super::error::StoreError;

/// Drives a connection in the background; dropping it closes the connection.
pub(crate) type ConnectionDriver = AbortOnDropHandle<()>;

pub(crate) async fn open(
    database: &DatabaseSettings,
    config: &Config,
) -> Result<(Client, ConnectionDriver), StoreError> {
    let (client, connection) = database.connect(config).await?;
    let name = config.get_application_name().unwrap_or_default().to_owned();
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(
                error = describe(&error),
                connection.name = name,
                "a connection to Postgres ended"
            );
        }
    }));
    Ok((client, driver))
}

pub(crate) async fn with_timeout<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work).await.map_err(|_| StoreError::Timeout(limit))?
}
