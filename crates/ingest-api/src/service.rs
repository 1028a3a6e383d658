//! What the handlers of all requests share: the settings, the database with its time limits, and
//! the metrics.

use std::time::Duration;

use postgres_kit::database::{Connections, Session};
use service_kit::metrics::Metrics;
use tokio::time::Instant;
use uuid::Uuid;

use crate::groups::{GroupedRow, Queues};
use crate::input::{Clock, Context};
use crate::metrics;
use crate::model::NewRow;
use crate::settings::Settings;
use crate::store::{self, DatabaseError, InsertOutcome, StoredRow};
use crate::uploads::Uploads;

/// The state of the service. Each handler gets it from the application's data.
pub(crate) struct IngestService {
    pub(crate) settings: Settings,
    /// Apart from [`IngestService::writes`], so that slow reads never keep a write waiting.
    pub(crate) reads: Connections,
    /// Also used by the readiness check, because a service that can only read is of no use.
    pub(crate) writes: Connections,
    /// Rows of single requests that wait to be written.
    pub(crate) queues: Queues,
    pub(crate) clock: Clock,
    pub(crate) uploads: Uploads,
    pub(crate) metrics: Metrics,
}

impl IngestService {
    /// The context of a row that arrives now, with the id from `Idempotency-Key` if the request has
    /// one.
    pub(crate) fn context(&self, key: Option<Uuid>) -> Context {
        let ahead =
            time::Duration::try_from(self.settings.limits.max_ahead).unwrap_or(time::Duration::MAX);
        Context { now: (self.clock)(), ahead, key }
    }

    /// Reads within the time limit of a request.
    pub(crate) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&Session) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let result = self.reads.run(self.settings.limits.query_timeout.get(), work).await;
        result.inspect_err(|error| metrics::record_failure(&self.metrics, error))
    }

    /// Deletes within the time limit of a request.
    pub(crate) async fn delete<T>(
        &self,
        work: impl AsyncFnOnce(&Session) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let result = self.writes.run(self.settings.limits.query_timeout.get(), work).await;
        result.inspect_err(|error| metrics::record_failure(&self.metrics, error))
    }

    /// Stores the rows of an upload as [`store::insert`] does, within a time limit.
    pub(crate) async fn insert<R: StoredRow>(
        &self,
        timeout: Duration,
        rows: &[NewRow<R>],
    ) -> Result<Vec<InsertOutcome<R>>, DatabaseError> {
        let start = Instant::now();
        let result =
            self.writes.run(timeout, async |session| store::insert(session, rows).await).await;
        let outcomes = result.iter().flatten();
        metrics::record_insert(&self.metrics, rows.len(), start.elapsed(), outcomes);
        result.inspect_err(|error| metrics::record_failure(&self.metrics, error))
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
