//! Days on which something happened: a recount goes through all events by them, so that it can say how far it is
//! and needs no more memory for a long history than for a short one.

use domain::{BucketTime, Metric, TimeUnit};
use time::OffsetDateTime;
use tokio_postgres::Client;

use crate::store::{StoreError, time};

/// The length of a day in milliseconds.
const DAY: i64 = 86_400_000;

/// Where the events of a metric are: table and column.
pub(crate) const fn events(metric: Metric) -> (&'static str, &'static str) {
    match metric {
        Metric::ItemCreation => ("public.items", "created_at"),
        Metric::Transfers => ("public.transfers", "\"timestamp\""),
    }
}

/// How far a recount is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What is being counted.
    pub metric: Metric,
    /// The first day on which there is anything of it.
    pub first_day: BucketTime,
    /// The last day on which there is an event of it.
    pub last_day: BucketTime,
    /// The day just counted.
    pub day: BucketTime,
    /// Events of all metrics counted so far.
    pub events: u64,
}

/// What is told of the progress.
pub type Report<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// The days on which there is something of a metric, oldest first.
pub(crate) struct Days {
    metric: Metric,
    /// Finds the first moment from `$1` on at which there is something.
    find: String,
    /// Where to look on; `None` at the end of all days.
    from: Option<BucketTime>,
    /// How many days there were.
    pub(crate) count: u64,
    span: Option<(BucketTime, BucketTime)>,
}

impl Days {
    /// Days with events.
    pub(crate) fn with_events(metric: Metric) -> Self {
        let (table, column) = events(metric);
        Self::new(metric, format!("SELECT min({column}) FROM {table} WHERE {column} >= $1"))
    }

    /// Days with events, or with a rollup of a unit up to the day.
    pub(crate) fn with_events_or_rollups(metric: Metric) -> Self {
        let (table, column) = events(metric);
        let rollup = |unit| {
            format!(
                "(SELECT min(bucket) FROM public.rollup WHERE metric = '{metric}' AND unit = '{unit}' AND bucket >= $1)"
            )
        };
        let [second, minute, hour, day] = ["second", "minute", "hour", "day"].map(rollup);
        let event = format!("(SELECT min({column}) FROM {table} WHERE {column} >= $1)");
        Self::new(metric, format!("SELECT least({event}, {second}, {minute}, {hour}, {day})"))
    }

    fn new(metric: Metric, find: String) -> Self {
        Self { metric, find, from: Some(BucketTime::MIN), count: 0, span: None }
    }

    /// The start of the next day, where there is one.
    pub(crate) async fn next(&mut self, client: &Client) -> Result<Option<BucketTime>, StoreError> {
        let Some(from) = self.from else { return Ok(None) };
        let day = first(client, &self.find, from).await?;
        self.from =
            day.and_then(|day| BucketTime::from_unix_milliseconds(day.unix_milliseconds() + DAY).ok());
        if let Some(day) = day {
            self.count += 1;
            if self.span.is_none() {
                let (table, column) = events(self.metric);
                let last = format!("SELECT max({column}) FROM {table} WHERE {column} >= $1");
                self.span = Some((day, first(client, &last, BucketTime::MIN).await?.unwrap_or(day)));
            }
        }
        Ok(day)
    }

    /// How far this is, once `day` was counted.
    pub(crate) fn progress(&self, day: BucketTime, events: u64) -> Progress {
        let (first_day, last_day) = self.span.unwrap_or((day, day));
        Progress { metric: self.metric, first_day, last_day, day, events }
    }
}

/// The day of the moment that a statement finds.
async fn first(client: &Client, find: &str, from: BucketTime) -> Result<Option<BucketTime>, StoreError> {
    let find = client.prepare(find).await?;
    let row = client.query_one(&find, &[&OffsetDateTime::from(from)]).await?;
    if row.try_get::<_, Option<OffsetDateTime>>(0)?.is_none() {
        return Ok(None);
    }
    Ok(Some(TimeUnit::Day.truncate(time(&row, 0)?)))
}
