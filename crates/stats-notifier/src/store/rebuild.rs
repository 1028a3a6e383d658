//! Counts all events again: on a first start over existing events, after a restore, or because an
//! operator asked for it.
//!
//! Invariant: only the leader does this, in one transaction, and it blocks no writer. Events that
//! are committed meanwhile are past the new cursor, and stay in the log.

use domain::Metric;
use time::OffsetDateTime;

use super::error::StoreError;
use super::event_days::{EventDays, OnProgress};
use super::row::column;
use super::session::Store;
use crate::settings::RetentionSettings;

/// Deletes all counts, and the log rows that the rebuild includes. Sequential scans, which the
/// session disables, are right here.
const DELETE_COUNTS: &str = "
    SET LOCAL enable_seqscan = on;
    DELETE FROM public.count_log;
    DELETE FROM public.rollup;
    UPDATE public.rollup_unit SET kept_since = '0001-01-01 00:00:00+00'";

/// Adds the events of one day to the rollups of each unit that keeps them. Returns their number.
///
/// `$1` is the metric, `$2` the start of the day.
pub(super) const COUNT_DAY: &str = "
    WITH counted AS MATERIALIZED (
        SELECT date_trunc('second', time, 'UTC') AS second, count(*) AS events
        FROM public.events
        WHERE metric = $1 AND time >= $2 AND time < $2 + interval '1 day'
        GROUP BY 1
    ), added AS (
        INSERT INTO public.rollup AS held (metric, unit, bucket, count)
        SELECT $1, unit, date_trunc(unit, second, 'UTC'), sum(events)
        FROM counted
        JOIN public.rollup_unit ON second >= kept_since
        GROUP BY 2, 3
        ON CONFLICT (metric, unit, bucket) DO UPDATE SET count = held.count + excluded.count
    )
    SELECT sum(events)::bigint
    FROM counted";

/// In a REPEATABLE READ transaction this is the snapshot that the events were counted by.
const SET_CURSOR: &str = "
    UPDATE public.rollup_cursor
    SET snapshot = pg_current_snapshot(),
        system_identifier = (SELECT system_identifier FROM pg_control_system()),
        database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// The result of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct RebuildReport {
    /// The term that counted.
    pub term: i64,
    /// The number of events.
    pub events: u64,
    /// The number of days with events, counted once for each metric.
    pub days: u64,
}

impl Store {
    /// Counts all events into the rollups, and sets the cursor to the snapshot they were counted
    /// by.
    pub async fn rebuild(
        &self,
        term: i64,
        retention: &RetentionSettings,
        on_progress: OnProgress<'_>,
    ) -> Result<RebuildReport, StoreError> {
        let work = async {
            self.lock_cursor(term).await?;
            self.client.batch_execute(DELETE_COUNTS).await?;
            for (unit, days) in retention.units() {
                self.advance_retention(unit, days).await?;
            }
            let mut report = RebuildReport { term, events: 0, days: 0 };
            for metric in Metric::ALL {
                self.count_events(metric, &mut report, on_progress).await?;
            }
            self.client.batch_execute(SET_CURSOR).await?;
            Ok(report)
        };
        self.in_one_snapshot(work).await
    }

    async fn count_events(
        &self,
        metric: Metric,
        report: &mut RebuildReport,
        on_progress: OnProgress<'_>,
    ) -> Result<(), StoreError> {
        let count_day = self.client.prepare(COUNT_DAY).await?;
        let mut days = EventDays::with_events(&self.client, metric);
        while let Some(day) = days.next().await? {
            let start = OffsetDateTime::from(day);
            let row = self.client.query_one(&count_day, &[&metric.as_str(), &start]).await?;
            let events: Option<i64> = column(&row, 0)?;
            report.events += events.map_or(0, i64::unsigned_abs);
            on_progress(days.progress(day, report.events));
        }
        report.days += days.count;
        Ok(())
    }
}
