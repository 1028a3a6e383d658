//! One term of a leader, from its load on.
//!
//! Invariant: a term that is over can publish nothing new, because its ticks fail with its session.
//! It can write nothing, because each write finds the term of the next leader in the cursor row.

use std::sync::Arc;

use domain::{Nonce, Retention, Statistics, Version};
use statistics_stream::Hub;
use tokio::time::Instant;

use crate::rebuild::log_progress;
use crate::settings::{RetentionSettings, Settings};
use crate::snapshot::Snapshot;
use crate::store::{LoadedState, Store, StoreError};

/// One term, from its load on. The leader drives it by the clock; tests drive it step by step.
///
/// If a method fails, the term is over, and the caller must end the session. A tick that fails has
/// published nothing. A write that fails may be committed nevertheless, if only the answer to its
/// COMMIT is missing, and [`Term::expire`] commits each unit separately. Both are harmless, because
/// the next term loads what is stored.
pub struct Term {
    number: i64,
    hub: Arc<Hub>,
    /// What memory has counted.
    cursor: Snapshot,
    /// What the rollups have counted, as far as this term knows.
    stored: Snapshot,
    /// Log rows of transactions below this one are purged.
    purged: u64,
    retention: Retention,
    /// Whether a tick found rows since the last flush.
    unflushed: bool,
    /// Ticks found no log rows of this transaction or a later one.
    rows_below: u64,
}

impl Drop for Term {
    /// Ends the streams of this term, so that gateways connect to the next leader.
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl Term {
    /// Begins the next term and loads its state. The caller must hold the lead. If this database
    /// was never counted, all events are counted first.
    ///
    /// # Errors
    /// [`StoreError`]; then the caller must release the lead, by ending the session.
    pub async fn begin(
        store: &Store,
        hub: Arc<Hub>,
        settings: &Settings,
    ) -> Result<Self, StoreError> {
        let Settings { retention, flush, .. } = settings;
        let number = store.begin_term().await?;
        if store.stored_cursor().await?.is_none() {
            tracing::info!(
                term.number = number,
                "counting all events, because the counts are missing or belong to another database"
            );
            store.rebuild(number, retention, &mut log_progress()).await?;
        }
        // A long log may take longer to load than a statement may take, so it is folded first. A
        // shorter one is loaded directly, so that the takeover is quick.
        if store.log_bytes().await? > flush.long_log_bytes {
            store.catch_up(number).await?;
        }
        // Before the load, so that this term loads exactly what the rollups still keep.
        for (unit, days) in retention.units() {
            store.expire(number, unit, days).await?;
        }
        let version = Version { nonce: Nonce::new(rand::random()), tick: 0 };
        let load_started = Instant::now();
        let LoadedState { statistics, cursor, retention } = store.load(version).await?;
        let stored = store.stored_cursor().await?.ok_or(StoreError::Deposed(number))?;
        let version = statistics.version();
        let rows_below = cursor.xmax();
        let term =
            Self { number, hub, cursor, stored, purged: 0, retention, unflushed: true, rows_below };
        // Before any subscriber can see the version.
        term.log_version(version);
        term.hub.start(statistics);
        term.hub.mark_live_at(load_started);
        tracing::info!(term.number = number, "leading");
        Ok(term)
    }

    /// The hub on which this term publishes.
    pub(crate) const fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Publishes what was committed since the last tick. Returns the number of log rows.
    pub async fn tick(&mut self, store: &Store) -> Result<u64, StoreError> {
        let started = Instant::now();
        let result = store.tick(&self.cursor, self.retention).await?;
        self.cursor = result.snapshot;
        // Live as of the start of the tick: the answer may be read long after the session was lost.
        self.hub.mark_live_at(started);
        if result.rows > 0 {
            // Before any subscriber can see the version.
            if let Some(Version { nonce, tick }) = self.hub.with_state(Statistics::version) {
                self.log_version(Version { nonce, tick: tick + 1 });
            }
            self.hub.advance(&result.changes);
            self.unflushed = true;
            self.rows_below = self.cursor.xmax();
        }
        Ok(result.rows)
    }

    /// Folds what was logged since the last flush into the rollups.
    ///
    /// If nothing new was logged, the stored cursor moves as long as counted rows are not purged
    /// yet, because a transaction was in progress at the last flush.
    pub async fn flush(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.unflushed || self.purged < self.rows_below {
            self.stored = store.flush(self.number).await?;
            self.unflushed = false;
        } else {
            // Notices a rebuild that has begun a new term, although there is nothing to write.
            store.check_term(self.number).await?;
        }
        Ok(())
    }

    /// Deletes at most `limit` log rows that both memory and the rollups have counted. Returns
    /// whether more are left.
    pub async fn purge(&mut self, store: &Store, limit: u32) -> Result<bool, StoreError> {
        let counted = self.cursor.xmin().min(self.stored.xmin());
        if counted > self.purged {
            self.purged = store.purge(self.number, self.purged, counted, limit).await?;
        }
        Ok(self.purged < counted)
    }

    /// Expires buckets that are older than the retention of their unit. Returns whether there are
    /// any to [delete](Term::delete_expired).
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

    /// The number of transactions between the oldest that the rollups may lack and the newest that
    /// memory has seen.
    pub fn lag(&self) -> u64 {
        self.cursor.xmax().saturating_sub(self.stored.xmin())
    }

    /// Logs which snapshot a version shows, so that it can be recomputed from the log.
    fn log_version(&self, version: Version) {
        tracing::debug!(%version, snapshot = %self.cursor, "publishing");
    }
}
