//! Reads one page of a period by one snapshot of the database, so it shows what the live windows of
//! that snapshot show.

use domain::{Bucket, BucketTime, Topic};
use postgres_kit::database::{Parameter, Session};
use statistics_stream::history::HistoryQuery;
use time::OffsetDateTime;
use tokio_postgres::types::Type;

use super::error::StoreError;
use super::row::{bucket, column, time};

/// The first buckets of a period, from the rollups and the log rows that are not in them yet, and
/// the time since when the unit keeps buckets. Returns no row if the rollups do not belong to this
/// database, and one row without a bucket if the period is empty.
///
/// The log has a row for each event of a large statement until that is folded. So its rows are
/// first restricted to times of the period, and grouped into bins, at most a day long, by
/// `date_bin`, which costs a fraction of `date_trunc`. A bucket that begins in the period may end
/// one length after it. A page needs no more bins than those of its most buckets, and of one that
/// begins before the period; a bucket longer than a day has at most 366.
///
/// `$1` is the metric, `$2` the unit, `$3` the start of the period or null, `$4` its end or null,
/// and `$5` the most buckets to return.
const READ_ROLLUPS: &str = "
    WITH bounds AS MATERIALIZED (
        SELECT kept_since,
               greatest(kept_since, $3::timestamptz) AS lower,
               coalesce($4::timestamptz, 'infinity') AS upper,
               CASE $2 WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || $2)::interval END
                   AS length,
               $2 IN ('second', 'minute', 'hour', 'day') AS is_bin
        FROM public.valid_rollup_cursor, public.rollup_unit
        WHERE unit = $2
    ), stored AS (
        SELECT bucket, count
        FROM public.rollup
        WHERE metric = $1
          AND unit = $2
          AND bucket >= (SELECT lower FROM bounds)
          AND bucket < (SELECT upper FROM bounds)
        ORDER BY bucket
        LIMIT $5
    ), bins AS (
        SELECT date_bin(
                   (SELECT CASE WHEN is_bin THEN length ELSE interval '1 day' END FROM bounds),
                   time,
                   '0001-01-01 00:00:00+00') AS bin,
               sum(delta) AS delta
        FROM public.unfolded_count_log
        WHERE metric = $1
          AND time >= (SELECT lower FROM bounds)
          AND time < (SELECT upper + length FROM bounds)
        GROUP BY 1
        ORDER BY 1
        LIMIT ($5 + 1) * (SELECT CASE WHEN is_bin THEN 1 ELSE 366 END FROM bounds)
    ), logged AS (
        SELECT CASE WHEN is_bin THEN bin ELSE date_trunc($2, bin, 'UTC') END AS bucket, delta
        FROM bins, bounds
    ), page AS (
        SELECT bucket, sum(count)::bigint AS count
        FROM (
            SELECT bucket, count FROM stored
            UNION ALL
            SELECT bucket, delta FROM logged, bounds WHERE bucket >= lower AND bucket < upper
        ) AS rolled_up_or_logged
        GROUP BY bucket
        ORDER BY bucket
        LIMIT $5
    )
    SELECT bucket, count, kept_since
    FROM bounds
    LEFT JOIN page ON true
    ORDER BY bucket";

/// The first milliseconds of a period that have events. Each is found by one probe of the index
/// above the one before.
///
/// `$1` is the metric, `$2` the start of the period, `$3` its end or null, and `$4` the most
/// buckets to return.
pub(super) const READ_MILLISECONDS: &str = "
    WITH RECURSIVE buckets (bucket) AS (
        SELECT date_bin('1 millisecond', min(time), '0001-01-01 00:00:00+00')
        FROM public.events
        WHERE metric = $1 AND time >= $2 AND time < coalesce($3::timestamptz, 'infinity')
        UNION ALL
        SELECT date_bin('1 millisecond', above.nearest, '0001-01-01 00:00:00+00')
        FROM buckets, LATERAL (
            SELECT min(time) AS nearest
            FROM public.events
            WHERE metric = $1
              AND time >= buckets.bucket + interval '1 millisecond'
              AND time < coalesce($3::timestamptz, 'infinity')
        ) AS above
        WHERE above.nearest IS NOT NULL
    )
    SELECT bucket, (
        SELECT count(*)
        FROM public.events
        WHERE metric = $1 AND time >= bucket AND time < bucket + interval '1 millisecond'
    )
    FROM buckets
    WHERE bucket IS NOT NULL
    LIMIT $4";

#[derive(Debug)]
pub(crate) struct KeptBuckets {
    /// The unit has no buckets before this time.
    pub(crate) kept_since: BucketTime,
    /// Oldest first.
    pub(crate) buckets: Vec<Bucket>,
}

/// Reads at most `limit` buckets of a unit longer than the millisecond.
pub(crate) async fn read_rollups(
    session: &Session,
    query: HistoryQuery,
    limit: i64,
) -> Result<KeptBuckets, StoreError> {
    let Topic { metric, unit } = query.topic;
    let [from, to] = [query.from, query.to].map(|time| time.map(OffsetDateTime::from));
    let parameters: [Parameter<'_>; 5] = [
        (&metric.as_str(), Type::TEXT),
        (&unit.as_str(), Type::TEXT),
        (&from, Type::TIMESTAMPTZ),
        (&to, Type::TIMESTAMPTZ),
        (&limit, Type::INT8),
    ];
    let rows = session.query(READ_ROLLUPS, &parameters).await?;
    let kept_since = time(rows.first().ok_or(StoreError::NeverCounted)?, 2)?;
    let mut buckets = Vec::with_capacity(rows.len());
    for row in &rows {
        // The row of an empty period has no count.
        if column::<Option<i64>>(row, 1)?.is_some() {
            buckets.push(bucket(row)?);
        }
    }
    Ok(KeptBuckets { kept_since, buckets })
}

/// Reads at most `limit` milliseconds of a period. They are kept as long as their events.
pub(crate) async fn read_milliseconds(
    session: &Session,
    query: HistoryQuery,
    limit: i64,
) -> Result<KeptBuckets, StoreError> {
    let from = OffsetDateTime::from(query.from.unwrap_or(BucketTime::MIN));
    let to = query.to.map(OffsetDateTime::from);
    let parameters: [Parameter<'_>; 4] = [
        (&query.topic.metric.as_str(), Type::TEXT),
        (&from, Type::TIMESTAMPTZ),
        (&to, Type::TIMESTAMPTZ),
        (&limit, Type::INT8),
    ];
    let rows = session.query(READ_MILLISECONDS, &parameters).await?;
    let buckets = rows.iter().map(bucket).collect::<Result<_, StoreError>>()?;
    Ok(KeptBuckets { kept_since: BucketTime::MIN, buckets })
}
