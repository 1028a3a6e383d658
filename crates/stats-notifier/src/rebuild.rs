//! Counting all events anew: on a first start over existing events, after a restore, or because somebody asked.
//!
//! Invariant: only whoever holds the lead does this, in one transaction, and writers are never blocked. What they
//! commit meanwhile is past the cursor that the recount sets, and stays in the log.

use std::time::{Duration, Instant};

use domain::Metric;
use time::OffsetDateTime;
use tokio_postgres::error::SqlState;

use crate::days::{self, Days, Progress, Report};
use crate::settings::{RetentionSettings, Settings};
use crate::store::{Statements, Store, StoreError};

/// How long one attempt to take the lead from another replica waits for its session to end.
const HANDOVER_ATTEMPT: Duration = Duration::from_secs(5);
/// How many there are. A frozen leader loses its session within the first.
const HANDOVER_ATTEMPTS: u32 = 6;

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Rebuilt {
    /// The term that did it.
    pub term: i64,
    /// Events counted.
    pub events: u64,
    /// Days on which there was at least one, once for each metric.
    pub days: u64,
}

impl Store {
    /// Recounts all events into the rollups, and sets the cursor to the snapshot that they were counted in.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where another term has begun; nothing was then changed.
    pub async fn rebuild(
        &self,
        term: i64,
        retention: &RetentionSettings,
        report: Report<'_>,
    ) -> Result<Rebuilt, StoreError> {
        let empty = "SET LOCAL enable_seqscan = on; DELETE FROM public.count_log; DELETE FROM public.rollup; \
             UPDATE public.rollup_unit SET kept_since = '0001-01-01 00:00:00+00'";
        let set_cursor = "UPDATE public.rollup_cursor SET snapshot = pg_current_snapshot(), \
             system_identifier = (SELECT system_identifier FROM pg_control_system()), \
             database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())";
        self.in_one_snapshot(async {
            self.lock_cursor(term).await?;
            self.client.batch_execute(empty).await?;
            for (unit, days) in retention.units() {
                self.raise_kept_since(unit, days).await?;
            }
            let mut rebuilt = Rebuilt { term, events: 0, days: 0 };
            for metric in Metric::ALL {
                rebuilt.days += self.recount(metric, &mut rebuilt.events, report).await?;
            }
            self.client.batch_execute(set_cursor).await?;
            Ok(rebuilt)
        })
        .await
    }

    /// Adds all events of a metric to the rollups, and returns on how many days there were any.
    async fn recount(&self, metric: Metric, events: &mut u64, report: Report<'_>) -> Result<u64, StoreError> {
        let (table, column) = days::events(metric);
        let add = format!(
            "WITH counted AS MATERIALIZED (\
             SELECT date_trunc('second', {column}, 'UTC') AS second, count(*) AS events FROM {table} \
             WHERE {column} >= $1 AND {column} < $1 + interval '1 day' GROUP BY 1), \
             added AS (INSERT INTO public.rollup AS held (metric, unit, bucket, count) \
             SELECT '{metric}', unit, date_trunc(unit, second, 'UTC'), sum(events) \
             FROM counted JOIN public.rollup_unit ON second >= kept_since GROUP BY 2, 3 \
             ON CONFLICT (metric, unit, bucket) DO UPDATE SET count = held.count + excluded.count) \
             SELECT sum(events)::bigint FROM counted"
        );
        let add = self.client.prepare(&add).await?;
        let mut days = Days::with_events(metric);
        while let Some(day) = days.next(&self.client).await? {
            let row = self.client.query_one(&add, &[&OffsetDateTime::from(day)]).await?;
            let of_day = row.try_get::<_, Option<i64>>(0)?.unwrap_or(0);
            *events += u64::try_from(of_day).unwrap_or(0);
            report(days.progress(day, *events));
        }
        Ok(days.count)
    }
}

/// Takes the lead from whoever has it, recounts all events, and gives the lead back: `stats-notifier rebuild`.
///
/// # Errors
/// [`StoreError`]; nothing was then changed, but the other replicas may have begun a new term.
pub async fn take_over_and_rebuild(settings: &Settings, report: Report<'_>) -> Result<Rebuilt, StoreError> {
    let Settings { database, leader, retention, .. } = settings;
    let store = Store::connect(database, leader, Statements::default()).await?;
    let interval = leader.address_check_interval.get();
    tokio::select! {
        rebuilt = take_over(&store, retention, report) => rebuilt,
        // It may never answer.
        () = store.session.until_left_behind(database, interval) => Err(StoreError::LeftBehind),
    }
}

async fn take_over(
    store: &Store,
    retention: &RetentionSettings,
    report: Report<'_>,
) -> Result<Rebuilt, StoreError> {
    // A new term deposes whoever leads: it notices at its next flush, at the latest, and ends its session. Its
    // lock then goes to the first in the queue, which is this session; the others only try.
    store.wait_for_locks(HANDOVER_ATTEMPT).await?;
    for _ in 0..HANDOVER_ATTEMPTS {
        match store.begin_term().await {
            // It is at a long flush, and keeps the row locked meanwhile.
            Err(StoreError::Postgres(error)) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                continue;
            }
            begun => begun?,
        };
        if store.wait_for_lead().await? {
            let term = store.begin_term().await?;
            return store.rebuild(term, retention, report).await;
        }
    }
    Err(StoreError::LeadHeld(HANDOVER_ATTEMPT * HANDOVER_ATTEMPTS))
}

/// Logs how far a recount is, every now and then.
pub(crate) fn log_progress() -> impl FnMut(Progress) + Send {
    let mut logged = Instant::now();
    move |progress| {
        if logged.elapsed() >= Duration::from_secs(2) {
            logged = Instant::now();
            tracing::info!(
                recount.metric = progress.metric.as_str(),
                recount.day = %progress.day,
                recount.last_day = %progress.last_day,
                recount.events = progress.events,
                "counting all events anew"
            );
        }
    }
}
