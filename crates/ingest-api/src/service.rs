//! What the handlers of all requests share: the settings, the database with its time limits, and
//! the metrics.

use std::sync::Arc;
use std::time::Duration;

use access_kit::control::AccessControl;
use access_kit::principal::Principal;
use access_kit::shares::Shares;
use postgres_kit::database::{BuildError, Connections, Session, Work};
use service_kit::metrics::Metrics;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::ApiError;
use crate::groups::{Delivery, GroupedRow, Queues};
use crate::input::{Clock, Context};
use crate::metrics;
use crate::model::NewRow;
use crate::settings::Settings;
use crate::store::{DatabaseError, Expectation, InsertOutcome, Insertion, StoredRow};
use crate::uploads::Uploads;

/// The service of one of the threads that serve requests. Each handler gets it from the
/// application's data.
///
/// Each thread has connections and queues of its own. A connection is driven by the thread that
/// opened it, so no request waits for another thread to wake up, which takes longer than all the
/// work of a request.
pub(crate) struct IngestService {
    pub(crate) settings: Arc<Settings>,
    /// Apart from [`IngestService::writes`], so that slow reads never keep a write waiting.
    pub(crate) reads: Connections,
    /// So that one key cannot have all of them. All threads share it.
    read_shares: Arc<Shares>,
    pub(crate) writes: Connections,
    /// Rows of single requests that wait to be written.
    pub(crate) queues: Queues,
    pub(crate) clock: Clock,
    /// One permit for each chunk of an upload that may be committed now. Only a chunk that is being
    /// committed has one: an upload that waits for its client does not hold up others.
    pub(crate) commits: Semaphore,
    /// What the uploads of all threads share.
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) metrics: Metrics,
    /// Who may go on with an upload.
    pub(crate) access: Arc<AccessControl>,
}

impl IngestService {
    /// The service of each of the threads that serve requests.
    ///
    /// # Errors
    /// As [`Connections::new`].
    pub(crate) fn for_each_thread(
        settings: &Arc<Settings>,
        clock: Clock,
        delivery: Delivery,
        metrics: &Metrics,
        access: &Arc<AccessControl>,
    ) -> Result<Vec<Arc<Self>>, BuildError> {
        let threads = settings.http.workers;
        let uploads = Arc::new(Uploads::new(&settings.bulk));
        let read_shares = Shares::of(settings.read_pool.max_connections.get(), "reads");
        let write_pool = settings.pool.share_of_each(threads);
        let read_pool = settings.read_pool.share_of_each(threads);
        let inserts = Work::Inserts { lock_timeout: settings.limits.lock_timeout() };
        let service = |_| {
            let database = &settings.database;
            let writes = Connections::new(database, &write_pool, inserts, "ingest-api")?;
            let reads = Connections::new(database, &read_pool, Work::Reads, "ingest-api reads")?;
            let queues = Queues::new(
                writes.clone(),
                settings.writes.clone(),
                &settings.limits,
                delivery,
                metrics.clone(),
            );
            let commits = Semaphore::new(settings.bulk.commits_of_each(threads));
            let uploads = Arc::clone(&uploads);
            let read_shares = Arc::clone(&read_shares);
            let (settings, metrics) = (Arc::clone(settings), metrics.clone());
            let access = Arc::clone(access);
            Ok(Arc::new(Self {
                settings,
                reads,
                read_shares,
                writes,
                queues,
                clock,
                commits,
                uploads,
                metrics,
                access,
            }))
        };
        (0..threads.get()).map(service).collect()
    }

    /// The context of a row that arrives now from a writer, with the id from `Idempotency-Key` if
    /// the request has one.
    pub(crate) fn context(&self, key: Option<Uuid>, writer: Option<i32>) -> Context {
        let ahead =
            time::Duration::try_from(self.settings.limits.max_ahead).unwrap_or(time::Duration::MAX);
        Context { now: (self.clock)(), ahead, key, writer }
    }

    /// Reads within the time limit of a request. A key that has its share of all reads waits for
    /// one of its own to end.
    pub(crate) async fn read<T>(
        &self,
        principal: &Principal,
        work: impl AsyncFnOnce(&Session) -> Result<T, DatabaseError>,
    ) -> Result<T, ApiError> {
        let deadline = Instant::now() + self.settings.limits.query_timeout.get();
        let left = || deadline.saturating_duration_since(Instant::now());
        let _share = self.read_shares.wait(principal, left()).await?;
        let result = self.reads.run(left(), work).await;
        Ok(result.inspect_err(|error| metrics::record_failure(&self.metrics, error))?)
    }

    /// Deletes within the time limit of a request.
    pub(crate) async fn delete<T>(
        &self,
        work: impl AsyncFnOnce(&Session) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let result = self.writes.run(self.settings.limits.query_timeout.get(), work).await;
        result.inspect_err(|error| metrics::record_failure(&self.metrics, error))
    }

    /// Stores the rows of an upload within a time limit. The outcomes are in the order of the rows.
    pub(crate) async fn insert<R: StoredRow>(
        &self,
        timeout: Duration,
        rows: &[NewRow<R>],
        expectation: &Expectation,
    ) -> Result<Vec<InsertOutcome<R>>, DatabaseError> {
        let start = Instant::now();
        let deadline = start + timeout;
        let mut insertion = Insertion::expected_new(rows, expectation);
        let result = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let work = async |session: &_| insertion.run(session).await;
            match self.writes.run(left, work).await {
                // The limit on the wait for a lock suits rows of single requests. An upload may
                // wait longer.
                Err(DatabaseError::Locked) if Instant::now() < deadline => {}
                result => break result,
            }
        };
        let outcomes = insertion.into_outcomes();
        let known = outcomes.iter().flatten();
        metrics::record_insert(&self.metrics, rows.len(), start.elapsed(), known);
        result.inspect_err(|error| metrics::record_failure(&self.metrics, error))?;
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Stores one row within the time limit of a request, in a group with others that wait.
    pub(crate) async fn insert_one<R: GroupedRow>(
        &self,
        row: NewRow<R>,
    ) -> Result<InsertOutcome<R>, DatabaseError> {
        let result = R::queue(&self.queues).insert(row).await;
        result.inspect_err(|error| metrics::record_failure(&self.metrics, error))
    }
}
