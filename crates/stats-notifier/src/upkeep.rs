//! What a term writes: it folds the log into the rollups, purges the log, and expires buckets.
//!
//! Invariant: a term that is over writes nothing, because each write finds the term of the next
//! leader in the cursor row. So it need not run on the session that holds the lead. It has one of
//! its own, and no tick waits for it, however long a fold takes.
//!
//! A fold and a tick do not disturb each other. A tick only reads. A purge deletes the rows of
//! transactions below the xmin of the stored cursor and of memory's cursor, as they were when the
//! purge began. Both cursors only move forward, so a tick that runs meanwhile needs no such row.

use tokio::sync::watch;

use crate::settings::RetentionSettings;
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError};
use crate::term::Counted;

/// The writes of one term. The leader drives them by the clock; tests drive them step by step.
///
/// If a method fails, the term is over. A write that fails may be committed nevertheless, if only
/// the answer to its COMMIT is missing, and [`Upkeep::expire`] commits each unit separately. Both
/// are harmless, because the next term loads what is stored.
pub struct Upkeep {
    number: i64,
    /// What the rollups have counted, as far as this term knows.
    stored: watch::Sender<Snapshot>,
    /// What memory has counted.
    counted: watch::Receiver<Counted>,
    /// The [`Counted::ticks_with_rows`] of the last flush; `None` before the first one.
    flushed: Option<u64>,
    /// Log rows of transactions below this one are purged.
    purged: u64,
}

impl Upkeep {
    pub(crate) fn new(number: i64, stored: Snapshot, counted: watch::Receiver<Counted>) -> Self {
        Self { number, stored: watch::Sender::new(stored), counted, flushed: None, purged: 0 }
    }

    /// The number of the term.
    pub(crate) const fn term(&self) -> i64 {
        self.number
    }

    fn counted(&self) -> Counted {
        *self.counted.borrow()
    }

    /// Folds what was logged since the last flush into the rollups.
    ///
    /// If nothing new was logged, the stored cursor moves as long as counted rows are not purged
    /// yet, because a transaction was in progress at the last flush.
    pub async fn flush(&mut self, store: &Store) -> Result<(), StoreError> {
        // Read before the flush takes its snapshot, which so sees all rows of these ticks.
        let Counted { ticks_with_rows, rows_below, .. } = self.counted();
        if self.flushed != Some(ticks_with_rows) || self.purged < rows_below {
            self.stored.send_replace(store.flush(self.number).await?);
            self.flushed = Some(ticks_with_rows);
        } else {
            // Notices a rebuild that has begun a new term, although there is nothing to write.
            store.check_term(self.number).await?;
        }
        Ok(())
    }

    /// Deletes at most `limit` log rows that both memory and the rollups have counted. Returns
    /// whether more are left.
    pub async fn purge(&mut self, store: &Store, limit: u32) -> Result<bool, StoreError> {
        let counted = self.counted().xmin.min(self.stored.borrow().xmin());
        if counted > self.purged {
            self.purged = store.purge(self.number, self.purged, counted, limit).await?;
        }
        Ok(self.purged < counted)
    }

    /// Expires buckets that are older than the retention of their unit. Returns whether there are
    /// any to [delete](Upkeep::delete_expired).
    pub async fn expire(
        &self,
        store: &Store,
        retention: &RetentionSettings,
    ) -> Result<bool, StoreError> {
        let mut any = false;
        for (unit, days) in retention.units() {
            any |= store.expire(self.number, unit, days).await?;
        }
        Ok(any)
    }

    /// Deletes at most `limit` expired buckets. Returns whether more may be left.
    pub async fn delete_expired(&self, store: &Store, limit: u32) -> Result<bool, StoreError> {
        store.delete_expired(self.number, limit).await
    }

    /// How far this is behind, at any time from now on.
    pub(crate) fn lag(&self) -> Lag {
        Lag { counted: self.counted.clone(), stored: self.stored.subscribe() }
    }
}

/// How far the rollups are behind memory.
#[derive(Debug)]
pub(crate) struct Lag {
    counted: watch::Receiver<Counted>,
    stored: watch::Receiver<Snapshot>,
}

impl Lag {
    /// The number of transactions between the oldest that the rollups may lack and the newest that
    /// memory has seen.
    pub(crate) fn transactions(&self) -> u64 {
        self.counted.borrow().xmax.saturating_sub(self.stored.borrow().xmin())
    }
}
