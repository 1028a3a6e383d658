//! Answers queries for a period, on every replica, whether it leads or not.
//!
//! Invariant: a page is exact as of one snapshot of the database, because one statement reads both
//! the rollups and the log rows that are not in them yet.

use std::time::Duration;

use domain::{BucketTime, TimeUnit, Topic};
use postgres_kit::database::{BuildError, Connections, DatabaseSettings, PoolUse, Session, Work};
use statistics_stream::history::{HistoryPage, HistoryQuery};

use crate::settings::HistorySettings;
use crate::store::StoreError;
use crate::store::history::{KeptBuckets, read_milliseconds, read_rollups};

/// Reads pages of history from the database.
#[derive(Debug, Clone)]
pub struct HistoryReader {
    connections: Connections,
    timeout: Duration,
    page_buckets: usize,
}

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The period begins before the retention of the unit.
    #[error("{topic} is kept since {kept_since}; query a longer unit for earlier times")]
    NotKept {
        /// The topic of the query.
        topic: Topic,
        /// The start of the retention.
        kept_since: BucketTime,
    },
    /// There is no connection, the statement failed, or its rows cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HistoryReader {
    /// Connects as a role that may read the rollups and the events.
    ///
    /// # Errors
    /// The connection pool cannot be built.
    pub fn new(
        database: &DatabaseSettings,
        settings: &HistorySettings,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            connections: Connections::new(
                database,
                &settings.pool,
                Work::Reads,
                "stats-notifier history",
            )?,
            timeout: settings.timeout.get(),
            page_buckets: usize::try_from(settings.max_page_buckets.get()).unwrap_or(usize::MAX),
        })
    }

    /// How the connections are used now.
    pub fn pool_use(&self) -> PoolUse {
        self.connections.pool_use()
    }

    /// Reads one page.
    pub async fn page(&self, query: HistoryQuery) -> Result<HistoryPage, HistoryError> {
        let HistoryQuery { topic, from, to, limit } = query;
        let limit = limit.clamp(1, self.page_buckets);
        // One more bucket shows whether there is a next page, and where it begins.
        let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let read = async |session: &Session| match topic.unit {
            TimeUnit::Millisecond => read_milliseconds(session, query, rows).await,
            _ => read_rollups(session, query, rows).await,
        };
        let KeptBuckets { kept_since, mut buckets } =
            self.connections.run(self.timeout, read).await?;
        let from = from.unwrap_or(kept_since);
        if from < kept_since {
            return Err(HistoryError::NotKept { topic, kept_since });
        }
        let next = buckets.get(limit).map(|bucket| bucket.time);
        buckets.truncate(limit);
        Ok(HistoryPage { topic, from, to, buckets, next })
    }
}
