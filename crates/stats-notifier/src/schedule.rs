//! The check that the leader runs by itself, once a day, and what it found.

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
use crate::verify::{Verified, Verifier, Way};

/// The longest wait before the clock is looked at again: it may have been set meanwhile.
const LOOK: Duration = Duration::from_secs(30);

/// What the last check of this replica found.
#[derive(Debug, Clone, Serialize)]
pub struct LastVerify {
    /// When it ended, RFC 3339.
    pub ended: String,
    /// What it compared; null where it could not be carried out.
    pub verified: Option<Verified>,
    /// Why it could not be carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Checks once a day, while this replica leads, until asked to stop.
///
/// # Errors
/// Never: a check that cannot be carried out is logged and told.
pub async fn run(
    settings: Settings,
    roles: watch::Receiver<Role>,
    last: watch::Sender<Option<LastVerify>>,
    metrics: VerifyMetrics,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let daily = async {
        let Some(at) = settings.verify.at_utc.0 else { return std::future::pending().await };
        loop {
            until(at).await;
            if !matches!(*roles.borrow(), Role::Leader(_)) {
                continue;
            }
            let outcome = verify(&settings).await;
            tell(&outcome);
            metrics.verified(&outcome);
            let ended = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
            let error = outcome.as_ref().err().map(ToString::to_string);
            last.send_replace(Some(LastVerify { ended, verified: outcome.ok(), error }));
        }
    };
    tokio::select! {
        () = daily => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

async fn verify(settings: &Settings) -> Result<Verified, StoreError> {
    let Settings { database, leader, verify, .. } = settings;
    let way = Way::DayByDay { load_percent: verify.load_percent.get() };
    let interval = leader.address_check_interval.get();
    Verifier::connect(database).await?.verify_here(way, database, interval, &mut |_| ()).await
}

fn tell(outcome: &Result<Verified, StoreError>) {
    match outcome {
        Ok(verified) if verified.mismatches == 0 => tracing::info!(
            verify.events = verified.events,
            verify.buckets = verified.buckets,
            "verified: every count is that of the events"
        ),
        Ok(verified) => tracing::error!(
            verify.mismatches = verified.mismatches,
            verify.buckets = verified.buckets,
            verify.first = ?verified.first_mismatches.first(),
            "some counts are not those of the events; `stats-notifier rebuild` counts anew"
        ),
        Err(error) => tracing::warn!(error = %error, "the counts could not be verified"),
    }
}

/// Waits for the next time that the clock shows `at`.
async fn until(at: Time) {
    let goal = next(OffsetDateTime::now_utc(), at);
    loop {
        let left = goal - OffsetDateTime::now_utc();
        let Ok(left) = Duration::try_from(left) else { return };
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// The first moment after `now` at which the clock shows `at`.
fn next(now: OffsetDateTime, at: Time) -> OffsetDateTime {
    let today = now.replace_time(at);
    if today > now { today } else { today.saturating_add(time::Duration::DAY) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::{datetime, time};

    #[test]
    fn the_next_time_is_today_or_tomorrow() {
        let at = time!(3:30);
        assert_eq!(next(datetime!(2026-11-25 3:29:59 UTC), at), datetime!(2026-11-25 3:30 UTC));
        assert_eq!(next(datetime!(2026-11-25 3:30 UTC), at), datetime!(2026-11-26 3:30 UTC));
        assert_eq!(next(datetime!(2026-12-31 23:00 UTC), at), datetime!(2027-01-01 3:30 UTC));
    }
}
