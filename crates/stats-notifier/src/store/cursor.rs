//! The cursor row: the current term, and the snapshot up to which the log is in the rollups.
//!
//! Invariant: a transaction that writes the rollups or the log first locks this row and finds its
//! own term in it. So two leaders at once cannot fold the same rows, and a deposed leader writes
//! nothing.

use tokio_postgres::error::SqlState;

use super::error::StoreError;
use super::row::{column, parsed};
use super::session::Store;
use crate::snapshot::Snapshot;

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
    pub async fn begin_term(&self) -> Result<i64, StoreError> {
        self.with_timeout(async { column(&self.client.query_typed_one(BEGIN_TERM, &[]).await?, 0) })
            .await
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
