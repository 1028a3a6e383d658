//! One term of a leader, from its load on.
//!
//! Invariant: a term that is over can publish nothing new, because its ticks fail with the session
//! that held the lead. What it writes is in [`crate::upkeep`].

use std::sync::Arc;

use domain::{Nonce, Retention, Statistics, Version};
use statistics_stream::Hub;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::rebuild::log_progress;
use crate::settings::RetentionSettings;
use crate::snapshot::Snapshot;
use crate::store::{LoadedState, Store, StoreError};
use crate::upkeep::Upkeep;

/// What memory has counted, as far as [`Upkeep`] needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// The xmin and the xmax of memory's cursor.
    pub(crate) xmin: u64,
    pub(crate) xmax: u64,
    /// The number of ticks that found rows.
    pub(crate) ticks_with_rows: u64,
    /// Ticks found no log rows of this transaction or a later one.
    pub(crate) rows_below: u64,
}

/// What one term shows, from its load on. The leader drives it by the clock; tests drive it step by
/// step.
///
/// If a tick fails, it has published nothing, the term is over, and the caller must end the
/// session.
pub struct Term {
    hub: Arc<Hub>,
    /// What memory has counted.
    cursor: Snapshot,
    retention: Retention,
    counted: watch::Sender<Counted>,
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
        retention: &RetentionSettings,
    ) -> Result<(Self, Upkeep), StoreError> {
        let number = store.begin_term().await?;
        if store.stored_cursor().await?.is_none() {
            tracing::info!(
                term.number = number,
                "counting all events, because the counts are missing or belong to another database"
            );
            store.rebuild(number, retention, &mut log_progress()).await?;
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
        let (counted, for_upkeep) = watch::channel(Counted {
            xmin: cursor.xmin(),
            xmax: cursor.xmax(),
            ticks_with_rows: 0,
            rows_below: cursor.xmax(),
        });
        let term = Self { hub, cursor, retention, counted };
        // Before any subscriber can see the version.
        term.log_version(version);
        term.hub.start(statistics);
        term.hub.mark_live_at(load_started);
        Ok((term, Upkeep::new(number, stored, for_upkeep)))
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
        if result.rows > 0 {
            // Before any subscriber can see the version.
            if let Some(Version { nonce, tick }) = self.hub.with_state(Statistics::version) {
                self.log_version(Version { nonce, tick: tick + 1 });
            }
            self.hub.advance(&result.changes);
        }
        // Live as of the start of the tick: the answer may be read long after the session was lost.
        // After the changes, which are therefore in the counts of that moment.
        self.hub.mark_live_at(started);
        self.counted.send_modify(|counted| {
            (counted.xmin, counted.xmax) = (self.cursor.xmin(), self.cursor.xmax());
            if result.rows > 0 {
                counted.ticks_with_rows += 1;
                counted.rows_below = counted.xmax;
            }
        });
        Ok(result.rows)
    }

    /// Logs which snapshot a version shows, so that it can be recomputed from the log.
    fn log_version(&self, version: Version) {
        tracing::debug!(%version, snapshot = %self.cursor, "publishing");
    }
}
