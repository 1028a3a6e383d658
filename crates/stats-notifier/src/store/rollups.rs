//! The rollups: what is kept beyond a term.
//!
//! Invariant: the rollups contain exactly what the stored snapshot sees, because both change in one
//! transaction.
//!
//! No write has a time limit. It may have to wait for a lock, and live numbers do not wait for it.
//! The leader notices if the session is gone ([`Store::has_session`]).

use domain::TimeUnit;

use super::error::StoreError;
use super::row::parsed;
use super::session::Store;
use crate::snapshot::Snapshot;

/// In a REPEATABLE READ transaction this is the snapshot that the fold read by.
const ADVANCE_CURSOR: &str = "
    UPDATE public.rollup_cursor
    SET snapshot = pg_current_snapshot()
    RETURNING snapshot::text";

/// Moves the start of the retention of a unit forward, if it is due.
///
/// `$1` is the unit, `$2` the days for which it keeps its buckets.
const ADVANCE_RETENTION: &str = "
    UPDATE public.rollup_unit
    SET kept_since = date_trunc('day', now() - make_interval(days => $2), 'UTC')
    WHERE unit = $1
      AND kept_since < date_trunc('day', now() - make_interval(days => $2), 'UTC')";

/// Deletes rollups that are older than the retention of their unit.
///
/// `$1` is the most rows to delete. Naming both metrics lets each use the primary key.
const DELETE_EXPIRED: &str = "
    DELETE FROM public.rollup
    WHERE ctid = ANY (ARRAY(
        SELECT rollup.ctid
        FROM public.rollup_unit
        CROSS JOIN unnest(ARRAY['item-creation', 'transfers']) AS of_metric
        JOIN public.rollup
            ON metric = of_metric AND rollup.unit = rollup_unit.unit AND bucket < kept_since
        LIMIT $1))";

impl Store {
    /// Folds the log past the stored cursor into the rollups, and moves the cursor to the snapshot
    /// of this transaction, which it returns.
    ///
    /// There is no time limit: a fold that is stopped has to be done again, and the log would only
    /// be longer then.
    pub async fn flush(&self, term: i64) -> Result<Snapshot, StoreError> {
        let work = async {
            let stored = self.lock_cursor(term).await?.ok_or(StoreError::Deposed(term))?;
            let fold = self.client.prepare(&self.statements.fold).await?;
            self.client.execute(&fold, &[&stored.to_string()]).await?;
            parsed(&self.client.query_one(ADVANCE_CURSOR, &[]).await?, 0)
        };
        self.in_one_snapshot(work).await
    }

    /// Expires the buckets of a fine unit that are older than `days`: they are no longer counted or
    /// shown. Returns whether the retention has moved.
    ///
    /// A term continues to count the expired buckets that it has loaded. The next term does not
    /// load them.
    pub async fn expire(&self, term: i64, unit: TimeUnit, days: i32) -> Result<bool, StoreError> {
        let work = async {
            self.lock_cursor(term).await?;
            self.advance_retention(unit, days).await
        };
        self.in_one_snapshot(work).await
    }

    /// [`Store::expire`] within an open transaction that has locked the cursor.
    pub(super) async fn advance_retention(
        &self,
        unit: TimeUnit,
        days: i32,
    ) -> Result<bool, StoreError> {
        let advance = self.client.prepare(ADVANCE_RETENTION).await?;
        Ok(self.client.execute(&advance, &[&unit.as_str(), &days]).await? > 0)
    }

    /// Deletes at most `limit` expired rollups. Returns whether more may be left.
    pub async fn delete_expired(&self, term: i64, limit: u32) -> Result<bool, StoreError> {
        let work = async {
            self.lock_cursor(term).await?;
            let delete = self.client.prepare(DELETE_EXPIRED).await?;
            Ok(self.client.execute(&delete, &[&i64::from(limit)]).await? >= u64::from(limit))
        };
        self.in_one_snapshot(work).await
    }
}
