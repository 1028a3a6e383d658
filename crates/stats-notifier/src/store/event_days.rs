//! The days that have events, oldest first.
//!
//! A rebuild and a verification go through all events day by day. So both can report their
//! progress, and a long history needs no more memory than a short one.

use domain::{BucketTime, Metric, TimeUnit};
use postgres_kit::database::Parameter;
use time::OffsetDateTime;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::error::StoreError;
use super::row::column;

/// The first event of a metric from a time on.
///
/// `$1` is the metric, `$2` the time.
pub(super) const NEXT_EVENT: &str = "
    SELECT min(time)
    FROM public.events
    WHERE metric = $1 AND time >= $2";

/// The first event of a metric, or bucket of a unit up to the day, from a time on.
///
/// `$1` is the metric, `$2` the time.
pub(super) const NEXT_EVENT_OR_ROLLUP: &str = "
    SELECT least(
        (SELECT min(time) FROM public.events WHERE metric = $1 AND time >= $2),
        (SELECT min(bucket) FROM public.rollup
         WHERE metric = $1 AND unit = 'second' AND bucket >= $2),
        (SELECT min(bucket) FROM public.rollup
         WHERE metric = $1 AND unit = 'minute' AND bucket >= $2),
        (SELECT min(bucket) FROM public.rollup
         WHERE metric = $1 AND unit = 'hour' AND bucket >= $2),
        (SELECT min(bucket) FROM public.rollup
         WHERE metric = $1 AND unit = 'day' AND bucket >= $2))";

/// `$1` is the metric.
pub(super) const LAST_EVENT: &str = "SELECT max(time) FROM public.events WHERE metric = $1";

/// In milliseconds.
const DAY: i64 = 86_400_000;

/// How far a rebuild or a verification has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The metric that is counted.
    pub metric: Metric,
    /// The first day of the metric.
    pub first_day: BucketTime,
    /// The day of the last event of the metric.
    pub last_day: BucketTime,
    /// The day that was counted last.
    pub day: BucketTime,
    /// The events of all metrics that were counted so far.
    pub events: u64,
}

/// Called after each day.
pub type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// Visits the days of a metric, oldest first.
pub(crate) struct EventDays<'a> {
    client: &'a Client,
    metric: Metric,
    /// Finds the first moment of the next day.
    next: &'static str,
    /// The start of the search for the next day; `None` after the last representable day.
    from: Option<BucketTime>,
    /// The number of days that were visited.
    pub(crate) count: u64,
    /// The first and the last day.
    span: Option<(BucketTime, BucketTime)>,
}

impl<'a> EventDays<'a> {
    /// Visits the days with events.
    pub(crate) const fn with_events(client: &'a Client, metric: Metric) -> Self {
        Self::new(client, metric, NEXT_EVENT)
    }

    /// Visits the days with events, or with a rollup of a unit up to the day.
    pub(crate) const fn with_events_or_rollups(client: &'a Client, metric: Metric) -> Self {
        Self::new(client, metric, NEXT_EVENT_OR_ROLLUP)
    }

    const fn new(client: &'a Client, metric: Metric, next: &'static str) -> Self {
        Self { client, metric, next, from: Some(BucketTime::MIN), count: 0, span: None }
    }

    /// The start of the next day.
    pub(crate) async fn next(&mut self) -> Result<Option<BucketTime>, StoreError> {
        let Some(from) = self.from else { return Ok(None) };
        let from = OffsetDateTime::from(from);
        let metric: Parameter<'_> = (&self.metric.as_str(), Type::TEXT);
        let after = [metric.clone(), (&from, Type::TIMESTAMPTZ)];
        let row = self.client.query_typed_one(self.next, &after).await?;
        let Some(day) = day(&row)? else {
            self.from = None;
            return Ok(None);
        };
        self.from = BucketTime::from_unix_milliseconds(day.unix_milliseconds() + DAY).ok();
        self.count += 1;
        if self.span.is_none() {
            let row = self.client.query_typed_one(LAST_EVENT, &[metric]).await?;
            self.span = Some((day, self::day(&row)?.unwrap_or(day)));
        }
        Ok(Some(day))
    }

    /// The progress after `day` was counted, with the number of events counted so far.
    pub(crate) fn progress(&self, day: BucketTime, events: u64) -> Progress {
        let (first_day, last_day) = self.span.unwrap_or((day, day));
        Progress { metric: self.metric, first_day, last_day, day, events }
    }
}

/// The day of the time in the row; `None` if it is null.
fn day(row: &Row) -> Result<Option<BucketTime>, StoreError> {
    let Some(time) = column::<Option<OffsetDateTime>>(row, 0)? else { return Ok(None) };
    Ok(Some(TimeUnit::Day.truncate(time.try_into()?)))
}
