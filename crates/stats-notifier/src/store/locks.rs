//! The advisory locks of the leader's sessions. Postgres releases them when the session ends.

use std::time::Duration;

use postgres_kit::locks::{AdvisoryLock, GATE, LEAD};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::error::StoreError;
use super::row::column;
use super::session::Store;
use crate::lead_watch::LeadHolder;

/// `$1` is the class of the lock, `$2` its purpose.
const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1, $2)";
/// `$1` is the class of the lock, `$2` its purpose.
const WAIT_FOR_LOCK: &str = "SELECT pg_advisory_lock($1, $2)";
/// `$1` is the class of the lock, `$2` its purpose.
const UNLOCK: &str = "SELECT pg_advisory_unlock($1, $2)";

/// What holds the lock of the lead, in whatever mode: the process id of a session, or the name of a
/// prepared transaction, which has none; the role; whether that is the role of this session; and
/// for how many seconds a session has been idle. A prepared transaction also locks its own id.
///
/// `$1` is the class of the lock, `$2` its purpose.
const READ_LEAD_HOLDERS: &str = "
    SELECT pid,
           quote_literal(gid),
           coalesce(usename, owner, '')::text,
           coalesce(usename = current_user, false),
           CASE WHEN state LIKE 'idle%'
                THEN greatest(extract(epoch FROM clock_timestamp() - state_change), 0)
                ELSE 0 END::double precision
    FROM pg_locks AS held
    LEFT JOIN pg_stat_activity AS activity USING (pid)
    LEFT JOIN (
        SELECT gid, owner, virtualtransaction
        FROM pg_prepared_xacts
        JOIN pg_locks ON transactionid = transaction AND pid IS NULL AND granted
    ) AS prepared ON pid IS NULL AND prepared.virtualtransaction = held.virtualtransaction
    WHERE locktype = 'advisory'
      AND granted
      AND classid = $1::integer::oid
      AND objid = $2::integer::oid
      AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (activity.datid IS NOT NULL OR gid IS NOT NULL)
    ORDER BY pid";

/// `$1` is a time as text, such as `5000ms`.
const SET_LOCK_TIMEOUT: &str = "SELECT set_config('lock_timeout', $1, false)";
const RESET_LOCK_TIMEOUT: &str = "RESET lock_timeout";

/// The holder in a row of [`READ_LEAD_HOLDERS`].
fn lead_holder(row: &Row) -> Result<LeadHolder, StoreError> {
    let role = column(row, 2)?;
    Ok(match column::<Option<i32>>(row, 0)? {
        None => LeadHolder::Prepared { name: column(row, 1)?, role },
        Some(process) => {
            let idle = Duration::try_from_secs_f64(column(row, 4)?).unwrap_or_default();
            LeadHolder::Session { process, role, is_own_role: column(row, 3)?, idle }
        }
    })
}

impl Store {
    /// Tries to take the lead.
    pub async fn try_lead(&self) -> Result<bool, StoreError> {
        self.call(TRY_LOCK, LEAD).await
    }

    /// What holds the lock of the lead.
    pub async fn lead_holders(&self) -> Result<Vec<LeadHolder>, StoreError> {
        let read = async {
            let rows = self.client.query_typed(READ_LEAD_HOLDERS, &LEAD.parameters()).await?;
            rows.iter().map(lead_holder).collect()
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
