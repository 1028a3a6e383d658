//! What was counted in any period, answered from the rollups by every replica, whether it leads or not.
//!
//! Invariant: a page is exact as of one snapshot of the database, for one statement reads the rollups and what of
//! the log is not in them yet. What the live windows show of the same snapshot is the same.

use std::time::Duration;

use deadpool_postgres::Client;
use domain::{Bucket, BucketTime, TimeUnit, Topic};
use postgres_kit::database::{Connections, DatabaseSettings, PoolUse, Unavailable};
use statistics_stream::history::{Page, Query};
use time::OffsetDateTime;

use crate::days::events;
use crate::rollups::CURSOR_IS_OF_HERE;
use crate::settings::HistorySettings;
use crate::store::{StoreError, past, time};

/// Answers pages of history.
#[derive(Debug, Clone)]
pub struct History {
    connections: Connections,
    timeout: Duration,
    page_buckets: usize,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The unit gave up the counts of that time.
    #[error("{topic} is kept since {kept_since}; ask a longer unit for what was before")]
    NotKept {
        /// What was asked for.
        topic: Topic,
        /// Since when there is any.
        kept_since: BucketTime,
    },
    /// The database was not there in time.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The database refused, or holds what makes no sense.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for HistoryError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

impl History {
    /// Answers from the database, by a role that can read the rollups and the events.
    ///
    /// # Errors
    /// The connections cannot be set up; never for what is built in.
    pub fn new(
        database: &DatabaseSettings,
        settings: &HistorySettings,
    ) -> Result<Self, deadpool_postgres::BuildError> {
        Ok(Self {
            connections: Connections::new(database, &settings.pool, "stats-notifier history")?,
            timeout: settings.timeout.get(),
            page_buckets: usize::try_from(settings.page_buckets.get()).unwrap_or(usize::MAX),
        })
    }

    /// How the connections are used just now.
    #[must_use]
    pub fn pool_use(&self) -> PoolUse {
        self.connections.pool_use()
    }

    /// A page of history.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn page(&self, query: Query) -> Result<Page, HistoryError> {
        let limit = query.limit.clamp(1, self.page_buckets);
        // One more tells whether there is a next page, and where it begins.
        let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let read = async |client: &Client| match query.topic.unit {
            TimeUnit::Millisecond => milliseconds_of(client, query, rows).await,
            _ => rollups_of(client, query, rows).await,
        };
        let (from, mut buckets) = self.connections.run(self.timeout, read).await?;
        let next = buckets.get(limit).map(|bucket| bucket.time);
        buckets.truncate(limit);
        Ok(Page { topic: query.topic, from, to: query.to, buckets, next })
    }
}

/// The first `rows` buckets of a period, and where it begins: the rollups, and the log past them.
async fn rollups_of(
    client: &Client,
    query: Query,
    rows: i64,
) -> Result<(BucketTime, Vec<Bucket>), HistoryError> {
    let [started_since, in_progress_then] = past("(SELECT snapshot FROM bounds)");
    let read = format!(
        "WITH bounds AS MATERIALIZED (SELECT snapshot, kept_since, {CURSOR_IS_OF_HERE} AS is_counted, \
         greatest(kept_since, $3::timestamptz) AS lower, coalesce($4::timestamptz, 'infinity') AS upper \
         FROM public.rollup_cursor, public.rollup_unit WHERE unit = $2), \
         stored AS (SELECT bucket, count FROM public.rollup WHERE metric = $1 AND unit = $2 \
         AND bucket >= (SELECT lower FROM bounds) AND bucket < (SELECT upper FROM bounds) \
         ORDER BY bucket LIMIT $5), \
         logged AS (SELECT date_trunc($2, bucket, 'UTC') AS bucket, delta FROM public.count_log WHERE metric = $1 \
         AND ({started_since} OR {in_progress_then})) \
         SELECT kept_since, NULL, is_counted FROM bounds UNION ALL \
         (SELECT bucket, sum(count)::bigint, NULL FROM (SELECT bucket, count FROM stored UNION ALL \
         SELECT bucket, delta FROM logged, bounds WHERE bucket >= lower AND bucket < upper) AS both_parts \
         GROUP BY 1 ORDER BY 1 LIMIT $5)"
    );
    let read = client.prepare_cached(&read).await?;
    let names = (query.topic.metric.as_str(), query.topic.unit.as_str());
    let [from, to] = [query.from, query.to].map(|time| time.map(OffsetDateTime::from));
    let found = client.query(&read, &[&names.0, &names.1, &from, &to, &rows]).await?;
    // UNION ALL promises no order: what is of one row is told by its third column, and the others are sorted.
    let (bounds, buckets): (Vec<_>, Vec<_>) =
        found.iter().partition(|row| matches!(row.try_get::<_, Option<bool>>(2), Ok(Some(_))));
    let bounds = bounds.first().ok_or(StoreError::NeverCounted)?;
    if !bounds.try_get::<_, bool>(2)? {
        return Err(StoreError::NeverCounted.into());
    }
    let kept_since = time(bounds, 0)?;
    let from = query.from.unwrap_or(kept_since);
    if from < kept_since {
        return Err(HistoryError::NotKept { topic: query.topic, kept_since });
    }
    let bucket = |row| Ok(Bucket { time: time(row, 0)?, count: row.try_get(1)? });
    let mut buckets = buckets.into_iter().map(bucket).collect::<Result<Vec<_>, StoreError>>()?;
    buckets.sort_unstable_by_key(|bucket| bucket.time);
    Ok((from, buckets))
}

/// The first `rows` milliseconds of a period in which there are events, from these: each found by one probe of
/// the index above the last.
async fn milliseconds_of(
    client: &Client,
    query: Query,
    rows: i64,
) -> Result<(BucketTime, Vec<Bucket>), HistoryError> {
    let (table, column) = events(query.topic.metric);
    let bucket = |time: &str| format!("date_bin('1 millisecond', {time}, '0001-01-01 00:00:00+00')");
    let (first, following) = (bucket(&format!("min({column})")), bucket("above.nearest"));
    let below = format!("{column} < coalesce($2::timestamptz, 'infinity')");
    let read = format!(
        "WITH RECURSIVE buckets (bucket) AS (\
         SELECT {first} FROM {table} WHERE {column} >= $1 AND {below} UNION ALL \
         SELECT {following} FROM buckets, LATERAL (SELECT min({column}) AS nearest FROM {table} \
         WHERE {column} >= buckets.bucket + interval '1 millisecond' AND {below}) AS above \
         WHERE above.nearest IS NOT NULL) \
         SELECT bucket, (SELECT count(*) FROM {table} WHERE {column} >= bucket \
         AND {column} < bucket + interval '1 millisecond') FROM buckets WHERE bucket IS NOT NULL LIMIT $3"
    );
    let read = client.prepare_cached(&read).await?;
    let from = query.from.unwrap_or(BucketTime::MIN);
    let to = query.to.map(OffsetDateTime::from);
    let found = client.query(&read, &[&OffsetDateTime::from(from), &to, &rows]).await?;
    let bucket = |row| Ok(Bucket { time: time(row, 0)?, count: row.try_get(1)? });
    Ok((from, found.iter().map(bucket).collect::<Result<_, StoreError>>()?))
}
