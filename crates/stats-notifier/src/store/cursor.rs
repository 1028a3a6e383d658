//! The cursor row: the current term, and the snapshot up to which the log is in the rollups.
//!
//! Invariant: a transaction that writes the rollups or the log first locks this row and finds its
//! own term in it. So two leaders at once cannot fold the same rows, and a deposed leader writes
//! nothing.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::error::StoreError;
use super::row::{column, parsed};
use super::session::{Store, UPKEEP_NAME};
use crate::snapshot::Snapshot;

/// Ends the sessions through which earlier terms write. What such a session has not committed is
/// rolled back.
///
/// It finds them by their name, and not by a lock, because any role could hold a lock, and would
/// keep every term from writing. Only sessions of the own role count, for a role may end no others.
///
/// A former leader may open such a session after this has looked. That does no harm, because the
/// name only ends a fold early; the term in the cursor row is what fences writes:
/// - If the session locks the cursor row before [`BEGIN_TERM`] does, that waits for the lock and
///   times out. The next attempt finds the session and ends it.
/// - If it locks the row later, it finds the next term there, and writes nothing.
///
/// `$1` is their application name.
const END_UPKEEP: &str = "
    SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity
    WHERE application_name = $1
      AND datname = current_database()
      AND usename = current_user";

/// Begins the next term.
const BEGIN_TERM: &str = "
    UPDATE public.rollup_cursor
    SET term = term + 1
    RETURNING term";

const READ_TERM: &str = "SELECT term FROM public.rollup_cursor";

/// The stored snapshot, or no row if it does not belong to this database.
const READ_VALID_CURSOR: &str = "SELECT snapshot::text FROM public.valid_rollup_cursor";

impl Store {
    /// Begins the next term. All earlier terms are over: their leaders can no longer write.
    ///
    /// A fold of an earlier term may have locked the cursor row, and can go on for long, although
    /// its leader is gone or frozen. It is ended first. If another one begins in between, this
    /// method fails after the lock timeout, and the caller tries again.
    pub async fn begin_term(&self) -> Result<i64, StoreError> {
        let begin = async {
            self.client.query_typed(END_UPKEEP, &[(&UPKEEP_NAME, Type::TEXT)]).await?;
            column(&self.client.query_typed_one(BEGIN_TERM, &[]).await?, 0)
        };
        self.with_timeout(begin).await
    }

    /// Checks that `term` is still the current one.
    pub async fn check_term(&self, term: i64) -> Result<(), StoreError> {
        let read = async { column::<i64>(&self.client.query_typed_one(READ_TERM, &[]).await?, 0) };
        let current = self.with_timeout(read).await?;
        if current == term { Ok(()) } else { Err(StoreError::Deposed(term)) }
    }

    /// The stored cursor. `None` if the events were never counted, or were restored from another
    /// database: then they must be counted again.
    pub async fn stored_cursor(&self) -> Result<Option<Snapshot>, StoreError> {
        let read = async {
            let row = self.client.query_typed_opt(READ_VALID_CURSOR, &[]).await?;
            row.map(|row| parsed(&row, 0)).transpose()
        };
        self.with_timeout(read).await
    }

    /// Locks the cursor row until the end of the transaction, and returns the stored snapshot.
    pub(super) async fn lock_cursor(&self, term: i64) -> Result<Option<Snapshot>, StoreError> {
        match self.client.query_opt(&self.statements.lock_cursor, &[&term]).await {
            Ok(Some(row)) => Ok(column::<Option<&str>>(&row, 0)?.map(str::parse).transpose()?),
            Ok(None) => Err(StoreError::Deposed(term)),
            // Another leader changed the row after the snapshot of this transaction, so it has
            // begun its term.
            Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {
                Err(StoreError::Deposed(term))
            }
            Err(error) => Err(error.into()),
        }
    }
}
