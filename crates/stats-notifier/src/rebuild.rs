//! Takes the lead from another replica to count all events again: `stats-notifier rebuild`.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::failover::watch_for_failover;
use crate::settings::{RetentionSettings, Settings};
pub use crate::store::RebuildReport;
use crate::store::{OnProgress, Progress, Statements, Store, StoreError};

/// How long one attempt waits for the session of the leader to end.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of attempts. A frozen leader loses its session during the first.
const HANDOVER_ATTEMPTS: u32 = 6;
/// The minimum interval between log messages about the progress.
const PROGRESS_LOG_INTERVAL: Duration = Duration::from_secs(2);

/// Takes the lead, counts all events again, and releases the lead.
///
/// # Errors
/// [`StoreError`]; then the counts are as before, but the other replicas may have begun a new term.
pub async fn take_over_and_rebuild(
    settings: &Settings,
    on_progress: OnProgress<'_>,
) -> Result<RebuildReport, StoreError> {
    let Settings { database, leader, retention, .. } = settings;
    let store = Store::connect(database, leader, Statements::default()).await?;
    let interval = leader.address_check_interval.get();
    tokio::select! {
        report = take_over(&store, retention, on_progress) => report,
        // A server that was replaced may never answer.
        () = watch_for_failover(store.session_id(), database, interval) => {
            Err(StoreError::ServerReplaced)
        }
    }
}

async fn take_over(
    store: &Store,
    retention: &RetentionSettings,
    on_progress: OnProgress<'_>,
) -> Result<RebuildReport, StoreError> {
    // A new term deposes the leader and ends the session through which it writes, so the leader
    // ends its other session, too. Its lock then goes to the first session that waits for it. This
    // one is the only one, because replicas only try.
    store.set_lock_timeout(HANDOVER_TIMEOUT).await?;
    for _ in 0..HANDOVER_ATTEMPTS {
        match store.begin_term().await {
            // Another session has locked the cursor row, such as another rebuild.
            Err(StoreError::Postgres(error))
                if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
            {
                continue;
            }
            begun => begun?,
        };
        if store.wait_for_lead().await? {
            let term = store.begin_term().await?;
            return store.rebuild(term, retention, on_progress).await;
        }
    }
    Err(StoreError::LeadHeld(HANDOVER_TIMEOUT * HANDOVER_ATTEMPTS))
}

/// Logs the progress of a rebuild, at most once in each [`PROGRESS_LOG_INTERVAL`].
pub(crate) fn log_progress() -> impl FnMut(Progress) + Send {
    let mut logged = Instant::now();
    move |progress| {
        if logged.elapsed() >= PROGRESS_LOG_INTERVAL {
            logged = Instant::now();
            tracing::info!(
                rebuild.metric = progress.metric.as_str(),
                rebuild.day = %progress.day,
                rebuild.last_day = %progress.last_day,
                rebuild.events = progress.events,
                "counting all events again"
            );
        }
    }
}
