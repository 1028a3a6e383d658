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

const READ_ONLY: &str = "SET default_transaction_read_only = on";

/// How a verification reads the database.
#[derive(Debug, Clone, Copy)]
pub enum VerifyMode {
    /// In one transaction, without a pause.
    OneSnapshot,
    /// One statement for each day, with pauses. No transaction stays open, so Postgres can clean up
    /// meanwhile.
    DayByDay {
        /// The share of the time that the verification may use, in percent from 1 to 100.
        load_percent: u32,
    },
}

/// A read-only session for verifications.
#[derive(Debug)]
pub struct Verifier {
    client: Client,
    session: SessionId,
    database: DatabaseSettings,
    address_check_interval: Duration,
    _driver: ConnectionDriver,
}

impl Verifier {
    /// Connects, and checks that this release works on the schema.
    ///
    /// # Errors
    /// [`StoreError`], also if what follows the login takes longer than the connect timeout.
    pub async fn connect(
        database: &DatabaseSettings,
        address_check_interval: Duration,
    ) -> Result<Self, StoreError> {
        let mut config = database.connection("stats-notifier verify");
        config.options("-c TimeZone=UTC -c jit=off");
        let (client, driver) = open(database, &config).await?;
        let prepare = async {
            // Not an option of the connection, which would look like one to a standby.
            client.batch_execute(READ_ONLY).await?;
            postgres_kit::schema::check(&client).await?;
            SessionId::read(&client).await
        };
        let session = with_timeout(database.connect_timeout.get(), prepare).await?;
        let database = database.clone();
        Ok(Self { client, session, database, address_check_interval, _driver: driver })
    }

    /// Compares all counts with all events. Ends after a failover: the server that was replaced may
    /// never answer, or may have a history that exists nowhere else.
    ///
    /// # Errors
    /// [`StoreError`], also [`StoreError::NeverCounted`] and [`StoreError::ServerReplaced`].
    pub async fn verify(
        &self,
        mode: VerifyMode,
        on_progress: OnProgress<'_>,
    ) -> Result<VerifyReport, StoreError> {
        let Self { session, database, address_check_interval, .. } = self;
        tokio::select! {
            report = self.compare(mode, on_progress) => report,
            () = watch_for_failover(session, database, *address_check_interval) => {
                Err(StoreError::ServerReplaced)
            }
        }
    }

    async fn compare(
        &self,
        mode: VerifyMode,
        on_progress: OnProgress<'_>,
    ) -> Result<VerifyReport, StoreError> {
        if let VerifyMode::OneSnapshot = mode {
            self.client.batch_execute(verify::BEGIN).await?;
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
            self.client.batch_execute(verify::COMMIT).await?;
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
        let mut days = EventDays::with_events_or_rollups(&self.client, metric);
        while let Some(day) = days.next().await? {
            let started = Instant::now();
            verify::compare_day(&self.client, metric, day, report).await?;
            tokio::time::sleep(pause_after(mode, started.elapsed())).await;
            on_progress(days.progress(day, report.events));
        }
        report.days += days.count;
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
    fn a_verification_pauses_for_the_rest_of_its_share() {
        let pause = |mode| pause_after(mode, Duration::from_millis(10)).as_millis();
        assert_eq!(pause(VerifyMode::OneSnapshot), 0);
        assert_eq!(pause(VerifyMode::DayByDay { load_percent: 10 }), 90);
        assert_eq!(pause(VerifyMode::DayByDay { load_percent: 100 }), 0);
    }
}
