//! Compares the counts with the events, at once or day by day.

use std::time::{Duration, Instant};

use domain::Metric;
use postgres_kit::database::DatabaseSettings;
use tokio_postgres::Client;

use crate::failover::watch_for_failover;
use crate::store::connection::{ConnectionDriver, open, with_timeout};
use crate::store::event_days::EventDays;
use crate::store::session::SessionId;
pub use crate::store::{Mismatch, VerifyReport};
use crate::store::{OnProgress, StoreError, verify};

/// How a check reads the database.
#[derive(Debug, Clone, Copy)]
pub enum VerifyMode {
    /// In one transaction, without a pause.
    OneSnapshot,
    /// One statement for each day, with pauses. No transaction stays open, so Postgres can clean up
    /// meanwhile.
    DayByDay {
        /// The share of the time that the check may use, in percent from 1 to 100.
        load_percent: u32,
    },
}

/// A read-only session for checks.
#[derive(Debug)]
pub struct Verifier {
    client: Client,
    session: SessionId,
    _driver: ConnectionDriver,
}

impl Verifier {
    /// Connects, and checks that the schema is the one that this release needs.
    ///
    /// # Errors
    /// [`StoreError`], also if all of this takes longer than the connect timeout.
    pub async fn connect(database: &DatabaseSettings) -> Result<Self, StoreError> {
        with_timeout(database.connect_timeout.get(), Self::connect_without_timeout(database)).await
    }

    async fn connect_without_timeout(database: &DatabaseSettings) -> Result<Self, StoreError> {
        let mut config = database.connection("stats-notifier verify");
        config.options("-c TimeZone=UTC -c jit=off -c default_transaction_read_only=on");
        let (client, driver) = open(&config).await?;
        postgres_kit::schema::check(&client).await?;
        let session = SessionId::read(&client).await?;
        Ok(Self { client, session, _driver: driver })
    }

    /// [`Verifier::verify`] that ends after a failover: the server that was left behind may never
    /// answer, or may have a history that exists nowhere else.
    ///
    /// # Errors
    /// [`StoreError`], also [`StoreError::LeftBehind`].
    pub async fn verify_unless_left_behind(
        &self,
        mode: VerifyMode,
        database: &DatabaseSettings,
        check_interval: Duration,
        on_progress: OnProgress<'_>,
    ) -> Result<VerifyReport, StoreError> {
        tokio::select! {
            report = self.verify(mode, on_progress) => report,
            () = watch_for_failover(&self.session, database, check_interval) => {
                Err(StoreError::LeftBehind)
            }
        }
    }

    /// Compares all counts with all events.
    ///
    /// # Errors
    /// [`StoreError`], also [`StoreError::NeverCounted`].
    pub async fn verify(
        &self,
        mode: VerifyMode,
        on_progress: OnProgress<'_>,
    ) -> Result<VerifyReport, StoreError> {
        if let VerifyMode::OneSnapshot = mode {
            verify::begin(&self.client).await?;
        }
        if !verify::is_counted(&self.client).await? {
            return Err(StoreError::NeverCounted);
        }
        let mut report = VerifyReport::default();
        for metric in Metric::ALL {
            self.compare_days(metric, mode, &mut report, on_progress).await?;
            verify::compare_longer_units(&self.client, metric, &mut report).await?;
        }
        if let VerifyMode::OneSnapshot = mode {
            verify::commit(&self.client).await?;
        }
        Ok(report)
    }

    async fn compare_days(
        &self,
        metric: Metric,
        mode: VerifyMode,
        report: &mut VerifyReport,
        on_progress: OnProgress<'_>,
    ) -> Result<(), StoreError> {
        let mut days = EventDays::with_events_or_rollups(metric);
        while let Some(day) = days.next(&self.client).await? {
            let started = Instant::now();
            verify::compare_day(&self.client, metric, day, report).await?;
            tokio::time::sleep(pause_after(mode, started.elapsed())).await;
            on_progress(days.progress(day, report.events));
        }
        report.days += days.count();
        Ok(())
    }
}

/// The pause after a busy period, which keeps the load at the allowed share.
fn pause_after(mode: VerifyMode, busy: Duration) -> Duration {
    match mode {
        VerifyMode::OneSnapshot => Duration::ZERO,
        VerifyMode::DayByDay { load_percent } => {
            let load = load_percent.clamp(1, 100);
            busy * (100 - load) / load
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_pauses_for_the_rest_of_its_share() {
        let busy = Duration::from_millis(10);
        assert_eq!(pause_after(VerifyMode::OneSnapshot, busy), Duration::ZERO);
        assert_eq!(
            pause_after(VerifyMode::DayByDay { load_percent: 10 }, busy),
            Duration::from_millis(90)
        );
        assert_eq!(pause_after(VerifyMode::DayByDay { load_percent: 100 }, busy), Duration::ZERO);
    }
}
