//! Taking the lead, and the terms of leading.
//!
//! Invariant: whoever leads holds its lock, ticks and flushes on one session, and losing that session ends the
//! term and drops all memory. A term that is over can publish nothing new, for its ticks fail with its session,
//! and can write nothing, for each write looks for its term in the row that the next leader has changed. Whoever
//! was frozen does not know yet that its term is over: it shows its state to nobody new before a tick succeeds.

use std::sync::Arc;
use std::time::Duration;

use domain::{Nonce, Retention, Statistics, Version};
use postgres_kit::schema::SchemaError;
use statistics_stream::Hub;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gate::{Gate, Move};
use crate::listener::Listener;
use crate::metrics::LeaderMetrics;
use crate::rebuild::log_progress;
use crate::rollups::Loaded;
use crate::settings::{RetentionSettings, Settings};
use crate::snapshot::Snapshot;
use crate::store::{Statements, Store, StoreError};

/// What this replica does, as the rest of the process sees it.
#[derive(Debug, Clone)]
pub enum Role {
    /// It has no session of the database, and this is why.
    Away(String),
    /// Another replica leads, and this one waits to.
    Standby,
    /// It leads, and publishes on this hub.
    Leader(Arc<Hub>),
}

impl Default for Role {
    fn default() -> Self {
        Self::Away("Postgres has not been reached yet".to_owned())
    }
}

impl Role {
    /// The hub of the present term, where this replica leads.
    #[must_use]
    pub fn hub(&self) -> Option<&Hub> {
        match self {
            Self::Leader(hub) => Some(hub),
            Self::Away(_) | Self::Standby => None,
        }
    }

    /// The role in a word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Standby => "standby",
            Self::Leader(_) => "leader",
        }
    }
}

/// After how long a round of purging begins no other batch.
const PURGE_TIME: Duration = Duration::from_millis(200);

/// One term, from its load on.
///
/// [`run`] drives it by the clock; tests drive it step by step.
pub struct Term {
    number: i64,
    hub: Arc<Hub>,
    /// What the memory has counted.
    cursor: Snapshot,
    /// What the rollups have counted, as far as this term knows.
    stored: Snapshot,
    /// Log rows of transactions below this one are purged.
    purged: u64,
    /// What the units keep, as far as this term counts.
    retention: Retention,
    /// Whether a tick found rows since the last flush.
    unflushed: bool,
    /// No log row that a tick found is of this transaction or a later one.
    rows_below: u64,
}

impl Drop for Term {
    /// Whoever follows this term's hub is sent away, to find the next leader.
    fn drop(&mut self) {
        self.hub.end();
    }
}

impl Term {
    /// Begins the next term and loads its state: the caller holds the lead. Where there is no count of this database
    /// yet, all events are counted first, as far as they are kept.
    ///
    /// # Errors
    /// [`StoreError`]; the lead must then be given up, by ending the session.
    pub async fn begin(store: &Store, hub: Arc<Hub>, settings: &Settings) -> Result<Self, StoreError> {
        let Settings { retention, flush, .. } = settings;
        let number = store.begin_term().await?;
        if store.stored_cursor().await?.is_none() {
            tracing::info!(
                term.number = number,
                "counting all events anew, for there is no count of this database"
            );
            store.rebuild(number, retention, &mut log_progress()).await?;
        }
        // More than can be read and folded within the deadline of a statement. A shorter one is loaded at once, so that a
        // takeover waits for nothing.
        if store.log_bytes().await? > flush.long_log_bytes {
            store.catch_up(number).await?;
        }
        // Before the load, so that what this term does not load is what the rollups no longer have.
        for (unit, days) in retention.units() {
            store.give_up(number, unit, days).await?;
        }
        let version = Version { nonce: Nonce::new(rand::random()), tick: 0 };
        let asked = Instant::now();
        let Loaded { statistics, cursor, retention } = store.load(version).await?;
        let stored = store.stored_cursor().await?.ok_or(StoreError::Deposed(number))?;
        let version = statistics.version();
        let rows_below = cursor.xmax();
        let (purged, unflushed) = (0, true);
        let term = Self { number, hub, cursor, stored, purged, retention, unflushed, rows_below };
        // Before anybody can be shown the version.
        term.announce(version);
        term.hub.start(statistics);
        term.hub.live_at(asked);
        tracing::info!(term.number = number, "leading");
        Ok(term)
    }

    /// Publishes what was committed since the last tick, and returns how many log rows there were.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was then published, and the term is over.
    pub async fn tick(&mut self, store: &Store) -> Result<u64, StoreError> {
        let asked = Instant::now();
        let ticked = store.tick(&self.cursor, self.retention).await?;
        self.cursor = ticked.now;
        // Not when the answer was read, which may be long after the session was lost.
        self.hub.live_at(asked);
        if ticked.rows > 0 {
            // Before anybody can be shown the version.
            if let Some(Version { nonce, tick }) = self.hub.read(Statistics::version) {
                self.announce(Version { nonce, tick: tick + 1 });
            }
            self.hub.advance(&ticked.changes);
            self.unflushed = true;
            self.rows_below = self.cursor.xmax();
        }
        Ok(ticked.rows)
    }

    /// Folds into the rollups what was logged since the last flush.
    ///
    /// Moves the stored cursor on, too, while a transaction that was open at the last flush keeps counted rows
    /// from being purged.
    ///
    /// # Errors
    /// [`StoreError`]; the term is over.
    pub async fn flush(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.unflushed || self.purged < self.rows_below {
            self.stored = store.flush(self.number).await?;
            self.unflushed = false;
        } else {
            // Whoever takes the lead on purpose, to rebuild, must not have to wait for an event.
            store.check_term(self.number).await?;
        }
        Ok(())
    }

    /// Deletes some log rows that both the memory and the rollups have counted. Returns whether more are left.
    ///
    /// # Errors
    /// [`StoreError`]; the term is over.
    pub async fn purge(&mut self, store: &Store, limit: u32) -> Result<bool, StoreError> {
        let counted = self.cursor.xmin().min(self.stored.xmin());
        if counted > self.purged {
            self.purged = store.purge(self.number, self.purged, counted, limit).await?;
        }
        Ok(self.purged < counted)
    }

    /// Gives up what has become too old for its unit. Returns whether there is anything to [delete](Term::delete).
    ///
    /// # Errors
    /// [`StoreError`]; the term is over.
    pub async fn give_up(&self, store: &Store, retention: &RetentionSettings) -> Result<bool, StoreError> {
        let mut any = false;
        for (unit, days) in retention.units() {
            any |= store.give_up(self.number, unit, days).await?;
        }
        Ok(any)
    }

    /// Deletes some of what was given up. Returns whether more may be left.
    ///
    /// # Errors
    /// [`StoreError`]; the term is over.
    pub async fn delete(&self, store: &Store, limit: u32) -> Result<bool, StoreError> {
        store.delete_given_up(self.number, limit).await
    }

    /// How many transactions lie between the oldest that the rollups may lack and the newest that the memory has
    /// seen.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.cursor.xmax().saturating_sub(self.stored.xmin())
    }

    /// Tells which snapshot the next version will show, for whoever recomputes it: from the log, where it names debug.
    fn announce(&self, version: Version) {
        tracing::debug!(%version, snapshot = %self.cursor, "publishing");
    }
}

/// What a replica needs to lead.
pub struct Candidate {
    /// All settings.
    pub settings: Settings,
    /// Makes the hub of a term.
    pub new_hub: Box<dyn Fn() -> Arc<Hub> + Send + Sync>,
    /// Where its role is published.
    pub role: watch::Sender<Role>,
    /// What is recorded.
    pub metrics: LeaderMetrics,
    /// The SQL that exactness rests on.
    pub statements: Statements,
}

/// Tries to lead, and leads, until asked to stop.
///
/// # Errors
/// The schema is not the one that this release works on: waiting would not help. Whatever else goes wrong ends
/// the term, is logged, and is followed by another attempt.
pub async fn run(candidate: Candidate, shutdown: CancellationToken) -> Result<(), StoreError> {
    let interval = candidate.settings.leader.attempt_interval.get();
    loop {
        // Stopping is no different from dying: nothing is in memory that the database does not have.
        let ended = tokio::select! {
            ended = candidate.lead_once() => ended,
            () = shutdown.cancelled() => Ok(()),
        };
        candidate.metrics.leading.set(0.0);
        candidate.metrics.gate_shut.set(0.0);
        match ended {
            Ok(()) => {
                candidate.role.send_replace(Role::Standby);
                return Ok(());
            }
            Err(StoreError::Schema(
                error @ (SchemaError::Missing | SchemaError::Older(_) | SchemaError::Newer(_)),
            )) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(error = %error, "not leading; trying again");
                candidate.role.send_replace(Role::Away(error.to_string()));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

impl Candidate {
    /// One session: waits for the lead, then leads. Returns only when the session is lost, or of no more use.
    async fn lead_once(&self) -> Result<(), StoreError> {
        let Settings { database, leader, .. } = &self.settings;
        let store = Store::connect(database, leader, self.statements.clone()).await?;
        let interval = leader.address_check_interval.get();
        tokio::select! {
            ended = self.lead_by(&store) => ended,
            () = store.session.until_left_behind(database, interval) => Err(StoreError::LeftBehind),
        }
    }

    async fn lead_by(&self, store: &Store) -> Result<(), StoreError> {
        let Settings { database, leader, .. } = &self.settings;
        self.role.send_replace(Role::Standby);
        while !store.try_lead().await? {
            tokio::time::sleep(leader.attempt_interval.get()).await;
        }
        let mut term = Term::begin(store, (self.new_hub)(), &self.settings).await?;
        self.metrics.terms.increment(1);
        self.metrics.leading.set(1.0);
        self.role.send_replace(Role::Leader(Arc::clone(&term.hub)));
        let woken = Arc::new(Notify::new());
        let listening = async {
            if self.settings.tick.listen {
                let notifications = self.metrics.notifications.clone();
                Listener::new(database.clone(), Arc::clone(&woken), notifications).run().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = self.keep_leading(store, &mut term, &woken) => ended,
            () = listening => Ok(()),
        }
    }

    /// The life of a term: tick, now and then flush and purge, mind the gate, wait.
    async fn keep_leading(&self, store: &Store, term: &mut Term, woken: &Notify) -> Result<(), StoreError> {
        let Settings { tick, gate, flush, retention, .. } = &self.settings;
        let spacing = tick.interval.get();
        let flush_interval = flush.interval.get();
        let mut gate = Gate::new(tick, gate);
        let (mut opened, mut flushed, mut last_tick) = (Instant::now(), Instant::now(), Instant::now());
        // What a former term gave up may not be deleted yet.
        let (mut looked_for_old, mut deleting) = (None::<Instant>, true);
        loop {
            let started = Instant::now();
            let rows = term.tick(store).await?;
            let found = rows > 0;
            self.metrics.ticked(rows, started.elapsed());
            gate.ticked(found, started.duration_since(last_tick));
            last_tick = started;
            // Flush follows a tick and purge follows both, so that what is purged was counted by both.
            if flushed.elapsed() >= flush_interval {
                self.keep(store, term, flush.purge_rows.get()).await?;
                let interval = retention.interval.get();
                if looked_for_old.is_none_or(|last| last.elapsed() >= interval) {
                    deleting |= term.give_up(store, retention).await?;
                    looked_for_old = Some(Instant::now());
                }
                if deleting {
                    deleting = term.delete(store, retention.delete_rows.get()).await?;
                }
                flushed = Instant::now();
            }
            self.metrics.gate_shut.set(if gate.is_shut() { 1.0 } else { 0.0 });
            match gate.next_move() {
                Move::Stay => {}
                Move::Shut => gate.moved(store.try_shut_gate().await?),
                Move::Open => {
                    store.open_gate().await?;
                    opened = Instant::now();
                    gate.moved(false);
                    // At once once more: whoever found the gate shut a moment ago notified nobody.
                    continue;
                }
            }
            let poll = gate.poll_interval(opened.elapsed());
            let idle_until =
                started + if found { spacing } else { poll.min(until_flush(flushed, flush_interval)) };
            tokio::select! {
                () = tokio::time::sleep_until(idle_until) => {}
                () = woken.notified() => tokio::time::sleep_until(started + spacing).await,
            }
        }
    }

    /// What is done about once a second: the flush, and the purge of what it leaves behind.
    async fn keep(&self, store: &Store, term: &mut Term, purge_rows: u32) -> Result<(), StoreError> {
        let started = Instant::now();
        term.flush(store).await?;
        let purging = Instant::now();
        self.metrics.flush_duration.record(purging.duration_since(started).as_secs_f64());
        // A batch at a time, and no more than leaves most of the time to ticks.
        while term.purge(store, purge_rows).await? && purging.elapsed() < PURGE_TIME {}
        self.metrics.purge_duration.record(purging.elapsed().as_secs_f64());
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge is a float, and need not be exact above 2^52"
        )]
        {
            self.metrics.cursor_lag.set(term.lag() as f64);
            self.metrics.log_size.set(store.log_bytes().await? as f64);
        }
        Ok(())
    }
}

fn until_flush(flushed: Instant, interval: Duration) -> Duration {
    interval.saturating_sub(flushed.elapsed())
}
