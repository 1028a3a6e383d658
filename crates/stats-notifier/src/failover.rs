//! Notices that a failover has replaced the server of a session.
//!
//! Invariant: a session ends once the database address leads to a server that accepts writes and
//! does not know the session. The replaced server may still run, and would show a history that
//! exists nowhere else. Or it hangs behind a proxy that keeps the connection alive, so that no TCP
//! timeout ends it.

use std::time::{Duration, Instant};

use postgres_kit::database::DatabaseSettings;
use tokio_postgres::config::TargetSessionAttrs;

use crate::store::StoreError;
use crate::store::connection::{open, with_timeout};
use crate::store::session::SessionId;

/// The minimum interval between warnings that the check failed.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Limits how often failures in a row are logged.
#[derive(Debug, Default)]
pub(crate) struct FailureLog {
    last: Option<Instant>,
}

impl FailureLog {
    /// The first failure is logged, and then one in each [`WARNING_INTERVAL`].
    pub(crate) fn should_log(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.duration_since(last) >= WARNING_INTERVAL);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// Returns once the address leads to a server that accepts writes and does not have this session.
pub(crate) async fn watch_for_failover(
    session: &SessionId,
    database: &DatabaseSettings,
    check_interval: Duration,
) {
    let mut failures = FailureLog::default();
    loop {
        tokio::time::sleep(check_interval).await;
        match with_timeout(database.connect_timeout.get(), is_replaced(session, database)).await {
            Ok(true) => return,
            Ok(false) => failures = FailureLog::default(),
            // A server that is full, is starting or is read-only does not show where the session
            // is, so the session goes on. The warning is for an operator: a server that refuses
            // this role may be the new primary.
            Err(error) if failures.should_log(Instant::now()) => {
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
    let mut config = database.connection("stats-notifier address");
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    let (client, _driver) = open(database, &config).await?;
    Ok(!session.is_known_to(&client).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_at_once_and_then_once_a_minute() {
        let mut failures = FailureLog::default();
        let began = Instant::now();
        let mut logged = |second: &u64| failures.should_log(began + Duration::from_secs(*second));
        let seconds: Vec<u64> = (0..=125).step_by(5).filter(|second| logged(second)).collect();
        assert_eq!(seconds, [0, 60, 120]);
    }
}
