//! The advisory locks of the leader's sessions. Postgres releases them when the session ends.

use std::time::Duration;

use postgres_kit::database::Parameter;
use postgres_kit::locks::{AdvisoryLock, GATE, LEAD};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::error::StoreError;
use super::row::column;
use super::session::{Store, UPKEEP_NAME};
use crate::lead_watch::LeadHolder;

/// `$1` is the class of the lock, `$2` its purpose.
const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1, $2)";
/// `$1` is the class of the lock, `$2` its purpose.
const WAIT_FOR_LOCK: &str = "SELECT pg_advisory_lock($1, $2)";
/// `$1` is the class of the lock, `$2` its purpose.
const UNLOCK: &str = "SELECT pg_advisory_unlock($1, $2)";

/// The sessions that hold the lock of the lead, in whatever mode; and whether this role has any
/// session for upkeep.
///
/// `$1` is the class of the lock, `$2` its purpose, `$3` the application name of upkeep.
const READ_LEAD_HOLDERS: &str = "
    SELECT pid,
           usename::text,
           usename = current_user,
           EXISTS (SELECT
                   FROM pg_stat_activity
                   WHERE application_name = $3
                     AND datname = current_database()
                     AND usename = current_user)
    FROM pg_locks
    JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory'
      AND granted
      AND classid = $1::integer::oid
      AND objid = $2::integer::oid
      AND datname = current_database()
    ORDER BY pid";

/// `$1` is a time as text, such as `5000ms`.
const SET_LOCK_TIMEOUT: &str = "SELECT set_config('lock_timeout', $1, false)";
const RESET_LOCK_TIMEOUT: &str = "RESET lock_timeout";

impl Store {
    /// Tries to take the lead.
    pub async fn try_lead(&self) -> Result<bool, StoreError> {
        self.call(TRY_LOCK, LEAD).await
    }

    /// The sessions that hold the lock of the lead.
    pub async fn lead_holders(&self) -> Result<Vec<LeadHolder>, StoreError> {
        let [class, lead] = LEAD.parameters();
        let locks: [Parameter<'_>; 3] = [class, lead, (&UPKEEP_NAME, Type::TEXT)];
        let read = async {
            let rows = self.client.query_typed(READ_LEAD_HOLDERS, &locks).await?;
            let holder = |row| {
                Ok(LeadHolder {
                    process: column(row, 0)?,
                    role: column(row, 1)?,
                    is_own_role: column(row, 2)?,
                    counts: column(row, 3)?,
                })
            };
            rows.iter().map(holder).collect()
        };
        self.with_timeout(read).await
    }

    /// Sets how long statements of this session may wait for a lock, until [`Store::wait_for_lead`]
    /// has taken the lead.
    pub async fn set_lock_timeout(&self, timeout: Duration) -> Result<(), StoreError> {
        let timeout = format!("{}ms", timeout.as_millis());
        self.client.query_typed_one(SET_LOCK_TIMEOUT, &[(&timeout, Type::TEXT)]).await?;
        Ok(())
    }

    /// Waits for the lead, for at most the lock timeout. Returns whether this session now leads.
    ///
    /// A session that waits gets the lock before all sessions that only try.
    pub async fn wait_for_lead(&self) -> Result<bool, StoreError> {
        match self.client.query_typed_one(WAIT_FOR_LOCK, &LEAD.parameters()).await {
            Ok(_) => {
                self.client.batch_execute(RESET_LOCK_TIMEOUT).await?;
                Ok(true)
            }
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Tries to shut the gate. Fails while a trigger tests the lock.
    pub async fn try_shut_gate(&self) -> Result<bool, StoreError> {
        self.call(TRY_LOCK, GATE).await
    }

    /// Opens the gate, so that producers notify again.
    pub async fn open_gate(&self) -> Result<bool, StoreError> {
        self.call(UNLOCK, GATE).await
    }

    async fn call(&self, function: &str, lock: AdvisoryLock) -> Result<bool, StoreError> {
        let call =
            async { column(&self.client.query_typed_one(function, &lock.parameters()).await?, 0) };
        self.with_timeout(call).await
    }
}
