//! Verifies the counts once a day while this replica leads, and keeps the last result.

use std::convert::Infallible;
use std::time::Duration;

use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, Time};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::leader::Role;
use crate::metrics::VerifyMetrics;
use crate::settings::Settings;
use crate::store::StoreError;
use crate::verify::{Verifier, VerifyMode, VerifyReport};

/// The longest wait before the clock is read again, because it may have been set.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The result of the last verification of this replica.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LastVerify {
    /// When it ended, as RFC 3339.
    pub(crate) ended: String,
    /// What it compared; null if it failed.
    pub(crate) verified: Option<VerifyReport>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Verifies once a day, while this replica leads, until `shutdown`. A verification that fails is
/// logged and reported.
pub(crate) async fn run(
    settings: Settings,
    roles: watch::Receiver<Role>,
    last: watch::Sender<Option<LastVerify>>,
    metrics: VerifyMetrics,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let daily = async {
        let Some(at) = settings.verify.at_utc else { return std::future::pending().await };
        loop {
            wait_until(at).await;
            if !matches!(*roles.borrow(), Role::Leader(_)) {
                continue;
            }
            let result = verify(&settings).await;
            log_result(&result);
            metrics.record(&result);
            let ended = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
            let error = result.as_ref().err().map(ToString::to_string);
            last.send_replace(Some(LastVerify { ended, verified: result.ok(), error }));
        }
    };
    tokio::select! {
        () = daily => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

async fn verify(settings: &Settings) -> Result<VerifyReport, StoreError> {
    let Settings { database, leader, verify, .. } = settings;
    let mode = VerifyMode::DayByDay { load_percent: verify.max_load_percent.get() };
    let verifier = Verifier::connect(database, leader.address_check_interval.get()).await?;
    verifier.verify(mode, &mut |_| ()).await
}

fn log_result(result: &Result<VerifyReport, StoreError>) {
    match result {
        Ok(report) if report.mismatches == 0 => tracing::info!(
            verify.events = report.events,
            verify.buckets = report.buckets,
            "verified: all counts match the events"
        ),
        Ok(report) => tracing::error!(
            verify.mismatches = report.mismatches,
            verify.buckets = report.buckets,
            verify.first = ?report.first_mismatches.first(),
            "some counts do not match the events; run `stats-notifier rebuild` to count all events again"
        ),
        Err(error) => tracing::warn!(error = %error, "the counts could not be verified"),
    }
}

/// Waits until the clock next shows `at`.
async fn wait_until(at: Time) {
    let goal = next_occurrence(OffsetDateTime::now_utc(), at);
    loop {
        let left = goal - OffsetDateTime::now_utc();
        let Ok(left) = Duration::try_from(left) else { return };
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(CLOCK_CHECK_INTERVAL)).await;
    }
}

/// The first moment after `now` at which the clock shows `at`.
fn next_occurrence(now: OffsetDateTime, at: Time) -> OffsetDateTime {
    let today = now.replace_time(at);
    if today > now { today } else { today.saturating_add(time::Duration::DAY) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::{datetime, time};

    #[test]
    fn the_next_occurrence_is_today_or_tomorrow() {
        let at = time!(3:30);
        for (now, next) in [
            (datetime!(2026-11-25 3:29:59 UTC), datetime!(2026-11-25 3:30 UTC)),
            (datetime!(2026-11-25 3:30 UTC), datetime!(2026-11-26 3:30 UTC)),
            (datetime!(2026-12-31 23:00 UTC), datetime!(2027-01-01 3:30 UTC)),
        ] {
            assert_eq!(next_occurrence(now, at), next);
        }
    }
}
