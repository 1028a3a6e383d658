//! Whether the database's address still leads to the server that a session is of.
//!
//! Invariant: once the address leads to a server that takes writes and does not know the session, the session is given
//! up. A server that was left behind by a failover may not have ended: it may go on as if nothing had happened, and whoever
//! is connected to it would show a history that nobody else has. Or it hangs behind a proxy that still answers for it,
//! so that no timeout of TCP tells.

use std::time::{Duration, Instant};

use postgres_kit::database::DatabaseSettings;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;

use crate::store::{StoreError, within};

/// How often it is told that it is not known where the address leads.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Failures in a row.
#[derive(Debug, Default)]
struct Failures {
    told: Option<Instant>,
}

impl Failures {
    /// Whether the one of now is told: the first is, and then one a minute.
    fn is_to_be_told(&mut self, now: Instant) -> bool {
        let due = self.told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY);
        if due {
            self.told = Some(now);
        }
        due
    }
}

/// What tells a session from all others, on whichever server.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    process: i32,
    since: String,
}

impl Session {
    /// That of a connection.
    pub(crate) async fn of(client: &Client) -> Result<Self, StoreError> {
        let find = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let row = client.query_one(find, &[]).await?;
        Ok(Self { process: row.try_get(0)?, since: row.try_get(1)? })
    }

    /// Returns once the address leads to a server that takes writes and has no such session.
    pub(crate) async fn until_left_behind(&self, database: &DatabaseSettings, interval: Duration) {
        let mut failures = Failures::default();
        loop {
            tokio::time::sleep(interval).await;
            match within(database.connect_timeout.get(), self.is_left_behind(database)).await {
                Ok(true) => return,
                Ok(false) => failures = Failures::default(),
                // A server that is full, starts or only reads says nothing of where the session is. But one that refuses
                // this role may be the one to be with, and only a person can tell.
                Err(error) if failures.is_to_be_told(Instant::now()) => {
                    tracing::warn!(
                        error = %error,
                        "not known whether the database's address still leads to the server of this session"
                    );
                }
                Err(_) => {}
            }
        }
    }

    async fn is_left_behind(&self, database: &DatabaseSettings) -> Result<bool, StoreError> {
        let mut config = database.connection("stats-notifier address");
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let (client, connection) = config.connect(NoTls).await?;
        let _driven = AbortOnDropHandle::new(tokio::spawn(connection));
        let find = "SELECT FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2";
        Ok(client.query_opt(find, &[&self.process, &self.since]).await?.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_at_once_and_then_once_a_minute() {
        let (mut failures, began) = (Failures::default(), Instant::now());
        let mut told = |second: &u64| failures.is_to_be_told(began + Duration::from_secs(*second));
        let seconds: Vec<u64> = (0..=125).step_by(5).filter(|second| told(second)).collect();
        assert_eq!(seconds, [0, 60, 120]);
    }
}
