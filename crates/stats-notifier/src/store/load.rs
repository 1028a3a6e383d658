//! Loads the state with which a term begins.

use domain::{
    Frame, FrameKind, Metric, Retention, Statistics, TimeUnit, Topic, TopicFrame, Version,
};
use tokio_postgres::Row;

use super::error::StoreError;
use super::row::{bucket, parsed, time};
use super::session::Store;
use crate::snapshot::Snapshot;

const READ_STORED_SNAPSHOT: &str = "
    SELECT snapshot::text
    FROM public.rollup_cursor
    WHERE snapshot IS NOT NULL";

const READ_RETENTION: &str = "SELECT unit, kept_since FROM public.rollup_unit";

/// The newest rollups of a topic, newest first.
///
/// `$1` is the metric, `$2` the unit, `$3` the number of buckets of its window.
const NEWEST_ROLLUPS: &str = "
    SELECT bucket, count
    FROM public.rollup
    WHERE metric = $1
      AND unit = $2
      AND bucket >= (SELECT kept_since FROM public.rollup_unit WHERE rollup_unit.unit = $2)
    ORDER BY bucket DESC
    LIMIT $3";

/// The newest milliseconds that have events, newest first. Each is found by one probe of the index
/// below the one before.
///
/// `$1` is the metric, `$2` the number of buckets of the window.
pub(super) const NEWEST_MILLISECONDS: &str = "
    WITH RECURSIVE buckets (bucket) AS (
        SELECT date_bin('1 millisecond', max(time), '0001-01-01 00:00:00+00')
        FROM public.events
        WHERE metric = $1
        UNION ALL
        SELECT date_bin('1 millisecond', below.newest, '0001-01-01 00:00:00+00')
        FROM buckets, LATERAL (
            SELECT max(time) AS newest
            FROM public.events
            WHERE metric = $1 AND time < buckets.bucket
        ) AS below
        WHERE below.newest IS NOT NULL
    )
    SELECT bucket, (
        SELECT count(*)
        FROM public.events
        WHERE metric = $1 AND time >= bucket AND time < bucket + interval '1 millisecond'
    )
    FROM buckets
    WHERE bucket IS NOT NULL
    LIMIT $2";

/// The state with which a term begins.
#[derive(Debug)]
pub struct LoadedState {
    /// The state of all topics.
    pub statistics: Statistics,
    /// The snapshot that the state was read by.
    pub cursor: Snapshot,
    /// The retention of each unit. A later event before its start is not counted by the unit as
    /// long as this state is used, because the count of that bucket was not loaded.
    pub retention: Retention,
}

impl Store {
    /// Loads the state of all topics by one snapshot: the newest rollups, the log past their
    /// cursor, and the newest milliseconds, counted from the events.
    ///
    /// There is no time limit: while no replica leads, the log can grow long, and it must be read
    /// once before a tick can begin where the load has ended.
    pub async fn load(&self, version: Version) -> Result<LoadedState, StoreError> {
        self.in_one_snapshot(self.load_in_transaction(version)).await
    }

    async fn load_in_transaction(&self, version: Version) -> Result<LoadedState, StoreError> {
        let retention = self.read_retention().await?;
        let stored = parsed(&self.client.query_one(READ_STORED_SNAPSHOT, &[]).await?, 0)?;
        let mut statistics = Statistics::new(version);
        let mut topics = Vec::new();
        let rollups = self.client.prepare(NEWEST_ROLLUPS).await?;
        for topic in Topic::all().filter(|topic| topic.unit != TimeUnit::Millisecond) {
            let Topic { metric, unit } = topic;
            let rows = self
                .client
                .query(&rollups, &[&metric.as_str(), &unit.as_str(), &limit(topic)])
                .await?;
            topics.push(window(topic, &rows)?);
        }
        statistics.apply(&Frame { kind: FrameKind::Snapshot, version, topics })?;
        let log = self.changes_since(&stored, retention).await?;
        statistics.advance(&log.changes);
        // The log has added its milliseconds to empty windows. The events of this snapshot already
        // include them, so their counts replace these.
        let version = statistics.version();
        let mut topics = Vec::new();
        for metric in Metric::ALL {
            let topic = Topic::new(metric, TimeUnit::Millisecond);
            let rows =
                self.client.query(NEWEST_MILLISECONDS, &[&metric.as_str(), &limit(topic)]).await?;
            topics.push(window(topic, &rows)?);
        }
        statistics.apply(&Frame { kind: FrameKind::Snapshot, version, topics })?;
        Ok(LoadedState { statistics, cursor: log.snapshot, retention })
    }

    async fn read_retention(&self) -> Result<Retention, StoreError> {
        let mut retention = Retention::default();
        for row in self.client.query(READ_RETENTION, &[]).await? {
            retention = retention.since(parsed(&row, 0)?, time(&row, 1)?);
        }
        Ok(retention)
    }
}

/// The number of buckets in the window of a topic, as a parameter of a statement.
fn limit(topic: Topic) -> i64 {
    i64::try_from(topic.unit.window()).unwrap_or(i64::MAX)
}

/// The window of a topic, from rows of its buckets, newest first.
fn window(topic: Topic, rows: &[Row]) -> Result<TopicFrame, StoreError> {
    let buckets = rows.iter().rev().map(bucket).collect::<Result<_, StoreError>>()?;
    Ok(TopicFrame { topic, window: topic.unit.window(), buckets })
}
