//! The change log: ticks read it, and purges delete what both cursors have passed.

use domain::{Changes, Retention};
use futures_util::TryStreamExt;

use super::error::StoreError;
use super::row::{column, parsed, time};
use super::session::Store;
use crate::snapshot::Snapshot;

/// Deletes the oldest log rows of a range of transactions. Returns how many were deleted, and the
/// transaction of the last of them if that was the most.
///
/// `$1` is the first transaction of the range and `$2` its end, exclusive, both as text. `$3` is
/// the most rows to delete.
const PURGE: &str = "
    WITH batch AS MATERIALIZED (
        SELECT ctid, xact_id
        FROM public.count_log
        WHERE xact_id >= $1::text::xid8 AND xact_id < $2::text::xid8
        ORDER BY xact_id
        LIMIT $3
    ), deleted AS (
        DELETE FROM public.count_log
        WHERE ctid = ANY (ARRAY(SELECT ctid FROM batch))
    )
    SELECT count(*), (SELECT xact_id::text FROM batch OFFSET $3 - 1)
    FROM batch";

/// The size on disk in bytes, with the index.
const LOG_BYTES: &str = "SELECT pg_total_relation_size('public.count_log')";

/// What a tick read.
#[derive(Debug, Clone)]
pub struct TickResult {
    /// The snapshot that the tick read by: the new cursor.
    pub snapshot: Snapshot,
    /// The number of log rows.
    pub rows: u64,
    /// The sum of the log rows, for each bucket.
    pub changes: Changes,
}

impl Store {
    /// Reads what was committed since `cursor`, and the snapshot that sees exactly that in
    /// addition.
    pub async fn tick(
        &self,
        cursor: &Snapshot,
        retention: Retention,
    ) -> Result<TickResult, StoreError> {
        self.with_timeout(self.changes_since(cursor, retention)).await
    }

    /// [`Store::tick`] without a time limit of its own, for a transaction that has one.
    pub(super) async fn changes_since(
        &self,
        cursor: &Snapshot,
        retention: Retention,
    ) -> Result<TickResult, StoreError> {
        // Prepared once: if a column of the log is changed later, so that the plan cannot be used
        // any more, the tick fails, and the next term begins with a new session.
        let tick = self.tick.get_or_try_init(|| self.client.prepare(&self.statements.tick)).await?;
        let stream = self.client.query_raw(tick, [cursor.to_string()]).await?;
        let mut stream = std::pin::pin!(stream);
        let mut snapshot = None;
        let mut rows = 0;
        let mut changes = Changes::with_retention(retention);
        while let Some(row) = stream.try_next().await? {
            match column::<Option<&str>>(&row, 0)? {
                Some(text) => snapshot = Some(text.parse()?),
                None => {
                    rows += 1;
                    changes.add(parsed(&row, 1)?, time(&row, 2)?, column(&row, 3)?);
                }
            }
        }
        Ok(TickResult { snapshot: snapshot.ok_or(StoreError::NoSnapshot)?, rows, changes })
    }

    /// Deletes log rows of the transactions from `from` up to, but not including, `to`; at most
    /// `limit` rows. Returns the transaction to continue at, or `to` if no rows are left.
    ///
    /// `to` must not be above the xmin of the stored cursor or of the memory's cursor. Both then
    /// see all of these transactions, so their rows are in the rollups and in memory.
    pub async fn purge(
        &self,
        term: i64,
        from: u64,
        to: u64,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let work = async {
            self.lock_cursor(term).await?;
            let purge = self.client.prepare(PURGE).await?;
            let [first, end] = [from, to].map(|transaction| transaction.to_string());
            let row = self.client.query_one(&purge, &[&first, &end, &i64::from(limit)]).await?;
            let deleted: i64 = column(&row, 0)?;
            if deleted < i64::from(limit) {
                return Ok(to);
            }
            // The limit may have cut off rows of the last transaction, so continue at that one.
            let last = column::<Option<&str>>(&row, 1)?.and_then(|text| text.parse().ok());
            Ok(last.unwrap_or(to))
        };
        self.in_one_snapshot(work).await
    }

    /// The size of the change log on disk in bytes, with its index.
    pub async fn log_bytes(&self) -> Result<i64, StoreError> {
        self.with_timeout(async { column(&self.client.query_typed_one(LOG_BYTES, &[]).await?, 0) })
            .await
    }
}
