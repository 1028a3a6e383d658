//! Compares the counts with the events. Writes nothing.
//!
//! Each day is compared in one statement, and so by one snapshot: its events with its rollups and
//! the log rows that are not in them yet. Units longer than a day are compared with their days. So
//! only a verification during which nothing may change needs one transaction for everything.

use domain::{BucketTime, Metric, Topic};
use postgres_kit::database::Parameter;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::error::StoreError;
use super::row::{column, parsed, time};

/// The most mismatches of a report; all are counted.
const REPORTED_MISMATCHES: u8 = 100;

/// Begins a verification of one snapshot.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(crate) const COMMIT: &str = "COMMIT";

const IS_COUNTED: &str = "SELECT EXISTS (SELECT FROM public.valid_rollup_cursor)";

/// Compares one day in the units up to the day. The first row has the numbers of buckets, of
/// mismatches and of events; the others are mismatches.
///
/// `$1` is the metric, `$2` the start of the day, `$3` the most mismatches to return.
pub(super) const COMPARE_DAY: &str = "
    WITH counted AS (
        SELECT unit, bucket, sum(count) AS count
        FROM (
            SELECT rollup.unit, bucket, count
            FROM public.rollup
            JOIN public.rollup_unit ON rollup.unit = rollup_unit.unit AND bucket >= kept_since
            WHERE metric = $1
              AND rollup.unit IN ('second', 'minute', 'hour', 'day')
              AND bucket >= $2
              AND bucket < $2 + interval '1 day'
            UNION ALL
            SELECT unit, date_trunc(unit, time, 'UTC'), delta
            FROM public.unfolded_count_log
            JOIN public.rollup_unit
                ON time >= kept_since AND unit IN ('second', 'minute', 'hour', 'day')
            WHERE metric = $1 AND time >= $2 AND time < $2 + interval '1 day'
        ) AS rolled_up_or_logged
        GROUP BY 1, 2
    ), expected AS (
        SELECT unit, date_trunc(unit, second, 'UTC') AS bucket, sum(events) AS count
        FROM (
            SELECT date_trunc('second', time, 'UTC') AS second, count(*) AS events
            FROM public.events
            WHERE metric = $1 AND time >= $2 AND time < $2 + interval '1 day'
            GROUP BY 1
        ) AS events_of_day
        JOIN public.rollup_unit
            ON second >= kept_since AND unit IN ('second', 'minute', 'hour', 'day')
        GROUP BY 1, 2
    ), compared AS MATERIALIZED (
        SELECT unit,
               bucket,
               coalesce(counted.count, 0)::bigint AS counted,
               coalesce(expected.count, 0)::bigint AS expected
        FROM counted
        FULL JOIN expected USING (unit, bucket)
    )
    SELECT NULL::text,
           NULL::timestamptz,
           count(*),
           count(*) FILTER (WHERE counted <> expected),
           (sum(expected) FILTER (WHERE unit = 'day'))::bigint
    FROM compared
    UNION ALL
    (SELECT unit, bucket, counted, expected, NULL
     FROM compared
     WHERE counted <> expected
     ORDER BY bucket, unit
     LIMIT $3)";

/// Compares the units longer than a day with their days. It reads rollups alone, because rows of
/// the log that are not folded yet are missing in both. Returns rows as [`COMPARE_DAY`] does.
///
/// `$1` is the metric, `$2` the most mismatches to return.
const COMPARE_LONGER_UNITS: &str = "
    WITH counted AS (
        SELECT unit, bucket, count
        FROM public.rollup
        WHERE metric = $1 AND unit IN ('week', 'month', 'quarter', 'year')
    ), expected AS (
        SELECT longer AS unit, date_trunc(longer, bucket, 'UTC') AS bucket, sum(count) AS count
        FROM public.rollup, unnest(ARRAY['week', 'month', 'quarter', 'year']) AS longer
        WHERE metric = $1 AND unit = 'day'
        GROUP BY 1, 2
    ), compared AS MATERIALIZED (
        SELECT unit,
               bucket,
               coalesce(counted.count, 0)::bigint AS counted,
               coalesce(expected.count, 0)::bigint AS expected
        FROM counted
        FULL JOIN expected USING (unit, bucket)
    )
    SELECT NULL::text,
           NULL::timestamptz,
           count(*),
           count(*) FILTER (WHERE counted <> expected),
           NULL::bigint
    FROM compared
    UNION ALL
    (SELECT unit, bucket, counted, expected, NULL
     FROM compared
     WHERE counted <> expected
     ORDER BY bucket, unit
     LIMIT $2)";

/// A bucket whose count differs from its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The metric and the unit.
    #[serde(serialize_with = "as_text")]
    pub topic: Topic,
    /// The start of the bucket.
    pub time: BucketTime,
    /// The count in the rollups; for a unit up to the day, with the log rows not yet in them.
    pub counted: i64,
    /// The number of events; for a longer unit, the sum of its days.
    pub expected: i64,
}

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The number of events.
    pub events: u64,
    /// The number of days, counted once for each metric.
    pub days: u64,
    /// The number of buckets, of all units.
    pub buckets: u64,
    /// The number of buckets with a wrong count.
    pub mismatches: u64,
    /// The first mismatches, at most 100.
    pub first_mismatches: Vec<Mismatch>,
}

impl VerifyReport {
    fn add(&mut self, metric: Metric, rows: &[Row]) -> Result<(), StoreError> {
        for row in rows {
            if column::<Option<&str>>(row, 0)?.is_none() {
                self.buckets += unsigned(column(row, 2)?);
                self.mismatches += unsigned(column(row, 3)?);
                self.events += column::<Option<i64>>(row, 4)?.map_or(0, unsigned);
            } else if self.first_mismatches.len() < usize::from(REPORTED_MISMATCHES) {
                self.first_mismatches.push(Mismatch {
                    topic: Topic::new(metric, parsed(row, 0)?),
                    time: time(row, 1)?,
                    counted: column(row, 2)?,
                    expected: column(row, 3)?,
                });
            }
        }
        Ok(())
    }
}

/// Whether the rollups belong to this database.
pub(crate) async fn is_counted(client: &Client) -> Result<bool, StoreError> {
    column(&client.query_typed_one(IS_COUNTED, &[]).await?, 0)
}

pub(crate) async fn compare_day(
    client: &Client,
    metric: Metric,
    day: BucketTime,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let start = OffsetDateTime::from(day);
    let parameters: [Parameter<'_>; 3] = [
        (&metric.as_str(), Type::TEXT),
        (&start, Type::TIMESTAMPTZ),
        (&i64::from(REPORTED_MISMATCHES), Type::INT8),
    ];
    let rows = client.query_typed(COMPARE_DAY, &parameters).await?;
    report.add(metric, &rows)
}

pub(crate) async fn compare_longer_units(
    client: &Client,
    metric: Metric,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let parameters: [Parameter<'_>; 2] =
        [(&metric.as_str(), Type::TEXT), (&i64::from(REPORTED_MISMATCHES), Type::INT8)];
    let rows = client.query_typed(COMPARE_LONGER_UNITS, &parameters).await?;
    report.add(metric, &rows)
}

/// A number of rows or events, which Postgres returns as a signed integer.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

fn as_text<S: Serializer>(topic: &Topic, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(topic)
}
