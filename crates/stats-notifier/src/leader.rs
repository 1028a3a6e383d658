//! Takes the lead, and drives a term by the clock.
//!
//! Invariant: a leader holds its lock and ticks on one session. Losing the session ends the term
//! and drops all memory. A leader that was frozen may not know that its term is over, so it refuses
//! new subscribers until its next tick succeeds ([`crate::routes`]). What it writes goes through
//! another session, so that ticks keep their pace ([`crate::upkeep`]).

use std::sync::Arc;
use std::time::Duration;

use service_kit::failure::FailureLog;
use statistics_stream::Hub;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::failover::watch_for_failover;
use crate::gate::{Gate, GateAction};
use crate::lead_watch::{LeadProblem, LeadWatch};
use crate::listener;
use crate::metrics::LeaderMetrics;
use crate::settings::Settings;
use crate::store::{Statements, Store, StoreError};
use crate::term::Term;
use crate::upkeep::{Lag, Upkeep};

/// What this replica does, as the rest of the process sees it.
#[derive(Debug, Clone)]
pub enum Role {
    /// It has no session, for this reason.
    Away(String),
    /// It tries to lead. Another replica leads, unless there is a problem.
    Standby(Option<LeadProblem>),
    /// It leads, and publishes on this hub.
    Leader(Arc<Hub>),
}

impl Default for Role {
    fn default() -> Self {
        Self::Away("Postgres has not been reached yet".to_owned())
    }
}

impl Role {
    /// The hub of the current term, if this replica leads.
    pub fn hub(&self) -> Option<&Hub> {
        match self {
            Self::Leader(hub) => Some(hub),
            Self::Away(_) | Self::Standby(_) => None,
        }
    }

    /// Why nobody counts, although this replica tries to lead.
    pub const fn lead_problem(&self) -> Option<&LeadProblem> {
        match self {
            Self::Standby(problem) => problem.as_ref(),
            Self::Away(_) | Self::Leader(_) => None,
        }
    }

    /// The name of the role in `/readyz`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Standby(_) => "standby",
            Self::Leader(_) => "leader",
        }
    }
}

/// No batch of a purge begins later than this after the first, so that the next flush comes in
/// time.
const PURGE_TIME: Duration = Duration::from_millis(200);

/// How long a leader waits before it tries again to open the session that writes.
const CONNECT_INTERVAL: Duration = Duration::from_millis(250);

/// How often a leader measures how far the writes are behind.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

/// How often a leader looks for its second session through the first one.
const SESSION_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How often a standby looks who has the lead.
const LEAD_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A replica that leads, or tries to.
pub struct Candidate {
    /// The settings of this service.
    pub settings: Settings,
    /// Makes the hub of a term.
    pub new_hub: Box<dyn Fn() -> Arc<Hub> + Send + Sync>,
    /// Publishes the role of this replica.
    pub role: watch::Sender<Role>,
    /// The metrics of all terms.
    pub metrics: LeaderMetrics,
    /// The statements on which exactness rests.
    pub statements: Statements,
}

/// Tries to lead, and leads, until `shutdown`.
///
/// # Errors
/// This release does not work on the schema, so waiting would not help. Any other error
/// ends the term, is logged, and is followed by another attempt.
pub async fn run(candidate: Candidate, shutdown: CancellationToken) -> Result<(), StoreError> {
    let interval = candidate.settings.leader.attempt_interval.get();
    let mut failures = FailureLog::default();
    loop {
        // A shutdown may stop anywhere, like a crash: memory has nothing that the database lacks.
        let ended = tokio::select! {
            ended = candidate.lead_once(&mut failures) => ended,
            () = shutdown.cancelled() => Ok(()),
        };
        candidate.metrics.leading.set(0.0);
        candidate.metrics.gate_shut.set(0.0);
        candidate.metrics.lead_blocked.set(0.0);
        match ended {
            Ok(()) => {
                candidate.role.send_replace(Role::Standby(None));
                return Ok(());
            }
            Err(StoreError::Schema(error)) if error.is_final() => return Err(error.into()),
            Err(error) => {
                if failures.should_log() {
                    tracing::warn!(error = %error, "not leading; trying again");
                }
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
    /// Opens one session, waits for the lead, and leads. Returns only if the session is lost or of
    /// no more use. To be a standby or to lead ends the failures.
    async fn lead_once(&self, failures: &mut FailureLog) -> Result<(), StoreError> {
        let Settings { database, leader, .. } = &self.settings;
        let store = Store::connect(database, leader, self.statements.clone()).await?;
        let interval = leader.address_check_interval.get();
        tokio::select! {
            ended = self.wait_and_lead(&store, failures) => ended,
            () = watch_for_failover(store.session_id(), database, interval) => {
                Err(StoreError::ServerReplaced)
            }
        }
    }

    async fn wait_and_lead(
        &self,
        store: &Store,
        failures: &mut FailureLog,
    ) -> Result<(), StoreError> {
        let Settings { database, retention, .. } = &self.settings;
        self.wait_for_lead(store, failures).await?;
        let (mut term, mut upkeep) = Term::begin(store, (self.new_hub)(), retention).await?;
        failures.end();
        self.metrics.terms.increment(1);
        self.metrics.leading.set(1.0);
        self.role.send_replace(Role::Leader(Arc::clone(term.hub())));
        tracing::info!(term.number = upkeep.term(), "leading");
        let lag = upkeep.lag();
        let wake = Arc::new(Notify::new());
        let notifications = &self.metrics.notifications;
        tokio::select! {
            ended = self.run_ticks(store, &mut term, &wake) => ended,
            ended = self.run_upkeep(store, &mut upkeep) => ended,
            ended = self.run_gauges(store, &lag) => ended,
            () = listener::run(database, &wake, notifications), if self.settings.tick.listen => Ok(()),
        }
    }

    /// Waits for the lead, and says so if what holds it does not count.
    async fn wait_for_lead(
        &self,
        store: &Store,
        failures: &mut FailureLog,
    ) -> Result<(), StoreError> {
        let mut watch = LeadWatch::new(self.settings.leader.session_timeout.get());
        let mut known: Option<LeadProblem> = None;
        let mut next_check = Instant::now();
        self.role.send_replace(Role::Standby(None));
        while !store.try_lead().await? {
            failures.end();
            if next_check <= Instant::now() {
                next_check = Instant::now() + LEAD_CHECK_INTERVAL;
                let problem = watch.judge(&store.lead_holders().await?, Instant::now());
                if problem != known {
                    match &problem {
                        Some(problem) => tracing::warn!(problem = %problem, "cannot lead"),
                        None => tracing::info!("another replica leads"),
                    }
                    self.metrics.lead_blocked.set(if problem.is_some() { 1.0 } else { 0.0 });
                    self.role.send_replace(Role::Standby(problem.clone()));
                    known = problem;
                }
            }
            tokio::time::sleep(self.settings.leader.attempt_interval.get()).await;
        }
        self.metrics.lead_blocked.set(0.0);
        Ok(())
    }

    /// Ticks, moves the gate, and waits, again and again.
    async fn run_ticks(
        &self,
        store: &Store,
        term: &mut Term,
        wake: &Notify,
    ) -> Result<(), StoreError> {
        let Settings { tick, gate, .. } = &self.settings;
        let spacing = tick.interval.get();
        let mut gate = Gate::new(tick, gate);
        let mut opened = Instant::now();
        let mut last_tick = Instant::now();
        loop {
            let started = Instant::now();
            let rows = term.tick(store).await?;
            let found_rows = rows > 0;
            self.metrics.record_tick(rows, started.elapsed());
            gate.record_tick(found_rows, started.duration_since(last_tick));
            last_tick = started;
            self.metrics.gate_shut.set(if gate.is_shut() { 1.0 } else { 0.0 });
            match gate.next_action() {
                GateAction::Keep => {}
                GateAction::Shut => gate.set_shut(store.try_shut_gate().await?),
                GateAction::Open => {
                    store.open_gate().await?;
                    opened = Instant::now();
                    gate.set_shut(false);
                    // Tick again at once: a trigger that found the gate shut just before did not
                    // notify.
                    continue;
                }
            }
            let pause = if found_rows { spacing } else { gate.poll_interval(opened.elapsed()) };
            tokio::select! {
                () = tokio::time::sleep_until(started + pause) => {}
                () = wake.notified() => tokio::time::sleep_until(started + spacing).await,
            }
        }
    }

    /// Writes through a session of its own. Fails with that session, or if the term is over.
    async fn run_upkeep(&self, lead: &Store, upkeep: &mut Upkeep) -> Result<(), StoreError> {
        let store = self.connect_for_upkeep(lead, upkeep.term()).await?;
        tokio::select! {
            ended = self.write(&store, upkeep) => ended,
            ended = until_gone(lead, &store) => ended,
        }
    }

    /// Opens the session for the writes, and tries until it succeeds. Ticks go on meanwhile,
    /// because live numbers need no write; only the log grows.
    async fn connect_for_upkeep(&self, lead: &Store, term: i64) -> Result<Store, StoreError> {
        let Settings { database, leader, .. } = &self.settings;
        let mut failures = FailureLog::default();
        loop {
            let error = match lead.connect_for_upkeep(database, leader).await {
                Ok(store) => return Ok(store),
                // Both concern the session of the lead, too.
                Err(error @ StoreError::ServerReplaced) => return Err(error),
                Err(StoreError::Schema(error)) if error.is_final() => return Err(error.into()),
                Err(error) => error,
            };
            if failures.should_log() {
                tracing::warn!(
                    error = %error,
                    "leading without a session that writes, so the change log grows; trying again"
                );
            }
            // A rebuild begins a term, and ends the session that writes, but there is none.
            lead.check_term(term).await?;
            tokio::time::sleep(CONNECT_INTERVAL).await;
        }
    }

    /// Flushes, purges, expires, and waits, again and again.
    async fn write(&self, store: &Store, upkeep: &mut Upkeep) -> Result<(), StoreError> {
        let Settings { flush, retention, .. } = &self.settings;
        let mut last_expire: Option<Instant> = None;
        // An earlier term may have left expired buckets.
        let mut deleting = true;
        loop {
            tokio::time::sleep(flush.interval.get()).await;
            self.flush_and_purge(store, upkeep, flush.max_purge_rows.get()).await?;
            if last_expire.is_none_or(|last| last.elapsed() >= retention.interval.get()) {
                deleting |= upkeep.expire(store, retention).await?;
                last_expire = Some(Instant::now());
            }
            if deleting {
                deleting = upkeep.delete_expired(store, retention.max_delete_rows.get()).await?;
            }
        }
    }

    async fn flush_and_purge(
        &self,
        store: &Store,
        upkeep: &mut Upkeep,
        purge_rows: u32,
    ) -> Result<(), StoreError> {
        let flush_started = Instant::now();
        upkeep.flush(store).await?;
        let purge_started = Instant::now();
        self.metrics
            .flush_duration
            .record(purge_started.duration_since(flush_started).as_secs_f64());
        while upkeep.purge(store, purge_rows).await? && purge_started.elapsed() < PURGE_TIME {}
        self.metrics.purge_duration.record(purge_started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Measures how far the writes are behind, through the session of the lead: during a long
    /// flush, or while there is no second session, these numbers matter most.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float, and need not be exact above 2^52"
    )]
    async fn run_gauges(&self, store: &Store, lag: &Lag) -> Result<(), StoreError> {
        loop {
            self.metrics.cursor_lag.set(lag.transactions() as f64);
            self.metrics.log_size.set(store.log_bytes().await? as f64);
            tokio::time::sleep(GAUGE_INTERVAL).await;
        }
    }
}

/// Fails once the server no longer has the session that writes.
///
/// A fold has no time limit, and a proxy may keep a connection open whose other end is gone. So a
/// leader could wait for ever. But the server ends each session of a leader that it receives
/// nothing from, and the session of the lead sees that.
async fn until_gone(lead: &Store, for_upkeep: &Store) -> Result<(), StoreError> {
    loop {
        tokio::time::sleep(SESSION_CHECK_INTERVAL).await;
        if !lead.has_session(for_upkeep.session_id()).await? {
            return Err(StoreError::UpkeepLost);
        }
    }
}
