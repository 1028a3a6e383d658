//! Notices that a failover has replaced the server of a session.
//!
//! Invariant: a session ends once the database address leads to a server that accepts writes and
//! does not know the session. The replaced server may still run, and would show a history that
//! exists nowhere else. Or it hangs behind a proxy that keeps the connection alive, so that no TCP
//! timeout ends it.

use std::time::Duration;

use postgres_kit::database::DatabaseSettings;
use service_kit::failure::FailureLog;

use crate::store::StoreError;
use crate::store::connection::{open, with_timeout};
use crate::store::session::SessionId;

/// Returns once the address leads to a server that accepts writes and does not have this session.
pub(crate) async fn watch_for_failover(
    session: &SessionId,
    database: &DatabaseSettings,
    check_interval: Duration,
) {
    let mut failures = FailureLog::default();
    loop {
        tokio::time::sleep(check_interval).await;
        match is_replaced(session, database).await {
            Ok(true) => return,
            Ok(false) => failures.end(),
            // A server that is full, is starting or is read-only does not show where the session
            // is, so the session goes on. The warning is for an operator: a server that refuses
            // this role may be the new primary.
            Err(error) if failures.should_log() => {
                tracing::warn!(
                    error = %error,
                    "cannot check whether the database address still leads to the server of this session"
                );
            }
            Err(_) => {}
        }
    }
}

/// Whether the address leads to a server that accepts writes and does not have this session.
async fn is_replaced(session: &SessionId, database: &DatabaseSettings) -> Result<bool, StoreError> {
    let (client, _driver) = open(database, &database.connection("stats-notifier address")).await?;
    let limit = database.connect_timeout.get();
    Ok(!with_timeout(limit, session.is_known_to(&client)).await?)
}
