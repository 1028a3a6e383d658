//! The metrics of this service, by name. The metrics of HTTP requests are in service-kit.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use postgres_kit::database::PoolUse;
use service_kit::metrics::Metrics;

use crate::model::{BaseItem, Item, Transfer, User};
use crate::service::IngestService;
use crate::store::{DatabaseError, InsertOutcome, StoredRow};

const ROWS: &str = "ingest_rows_total";
const INSERT_ROWS: &str = "ingest_insert_rows";
const INSERT_DURATION: &str = "ingest_insert_duration_seconds";
const QUEUED: &str = "ingest_queued_rows";
const FULL_QUEUE: &str = "ingest_queue_full_total";
const DATABASE_ERRORS: &str = "ingest_database_errors_total";
const UPLOADS: &str = "ingest_uploads";
const UPLOAD_BYTES: &str = "ingest_upload_waiting_bytes";
const UPLOAD_RESERVED: &str = "ingest_upload_reserved_bytes";
const CONNECTIONS: &str = "ingest_pool_connections";
const WAITING: &str = "ingest_pool_waiting_requests";
const REPLANNED: &str = "ingest_replanned_statements_total";

/// Registers the help texts, and the counters that are to start at zero.
pub(crate) fn describe(metrics: &Metrics) {
    metrics.with(|| {
        describe_counter!(ROWS, "Rows received, by table and outcome.");
        describe_histogram!(INSERT_ROWS, "Rows per insert, by table.");
        describe_histogram!(
            INSERT_DURATION,
            "Duration of an insert, including the wait for a connection, by table."
        );
        describe_gauge!(QUEUED, "Rows that wait to be written in a group, by table.");
        describe_counter!(
            FULL_QUEUE,
            "Rows that were answered 503 because the queue was full, by table; see \
             writes.max_queued_rows."
        );
        for table in [BaseItem::TABLE, User::TABLE, Item::TABLE, Transfer::TABLE] {
            counter!(FULL_QUEUE, "table" => table).increment(0);
        }
        describe_counter!(
            DATABASE_ERRORS,
            "Requests that failed in the database, by kind: away, refused or unreadable."
        );
        describe_gauge!(UPLOADS, "Uploads of many rows in progress.");
        describe_gauge!(
            UPLOAD_BYTES,
            "Bytes of rows that uploads hold for their next commit; see bulk.max_waiting_bytes."
        );
        describe_gauge!(
            UPLOAD_RESERVED,
            "Bytes reserved for bodies that are arriving, apart from rows; see \
             bulk.max_waiting_bytes."
        );
        describe_gauge!(
            CONNECTIONS,
            "Connections to the database, by pool (read or write) and state (idle or in use)."
        );
        describe_gauge!(WAITING, "Requests that wait for a connection to the database, by pool.");
        describe_counter!(
            REPLANNED,
            "Statements that were prepared again because a table had changed, by pool."
        );
        for kind in ["away", "refused", "unreadable"] {
            counter!(DATABASE_ERRORS, "kind" => kind).increment(0);
        }
    });
}

/// Records an insert of `rows` rows, with the outcomes that are known.
pub(crate) fn record_insert<'a, R: StoredRow>(
    metrics: &Metrics,
    rows: usize,
    duration: Duration,
    outcomes: impl Iterator<Item = &'a InsertOutcome<R>>,
) {
    metrics.with(|| {
        #[expect(clippy::cast_precision_loss, reason = "a chunk has far fewer than 2^52 rows")]
        histogram!(INSERT_ROWS, "table" => R::TABLE).record(rows as f64);
        histogram!(INSERT_DURATION, "table" => R::TABLE).record(duration.as_secs_f64());
        let (mut created, mut repeated, mut rejected) = (0, 0, 0);
        for outcome in outcomes {
            match outcome {
                InsertOutcome::Created(_) => created += 1,
                InsertOutcome::Repeated(_) => repeated += 1,
                InsertOutcome::Rejected(_) => rejected += 1,
            }
        }
        for (outcome, rows) in
            [("created", created), ("repeated", repeated), ("rejected", rejected)]
        {
            if rows > 0 {
                counter!(ROWS, "table" => R::TABLE, "outcome" => outcome).increment(rows);
            }
        }
    });
}

/// Records a row that found its queue full.
pub(crate) fn record_full_queue<R: StoredRow>(metrics: &Metrics) {
    metrics.with(|| counter!(FULL_QUEUE, "table" => R::TABLE).increment(1));
}

/// Records a request that failed in the database. What the client did wrong is not counted, and a
/// full queue has its own counter.
pub(crate) fn record_failure(metrics: &Metrics, error: &DatabaseError) {
    let kind = match error {
        DatabaseError::Away(_) | DatabaseError::Contended | DatabaseError::Locked => "away",
        DatabaseError::Refused(_) => "refused",
        DatabaseError::Unreadable { .. } => "unreadable",
        DatabaseError::NotFound(_) | DatabaseError::HasTransfers | DatabaseError::QueueFull => {
            return;
        }
    };
    metrics.with(|| counter!(DATABASE_ERRORS, "kind" => kind).increment(1));
}

/// Sets what is sampled when the metrics are read: the sums over all threads.
#[expect(clippy::cast_precision_loss, reason = "connections, uploads and bytes are few")]
pub(crate) fn sample(threads: &[Arc<IngestService>]) {
    let Some(any) = threads.first() else { return };
    any.metrics.with(|| {
        let reads: PoolUse = threads.iter().map(|thread| thread.reads.pool_use()).sum();
        let writes: PoolUse = threads.iter().map(|thread| thread.writes.pool_use()).sum();
        for (pool, used) in [("read", reads), ("write", writes)] {
            gauge!(CONNECTIONS, "pool" => pool, "state" => "idle").set(used.idle as f64);
            gauge!(CONNECTIONS, "pool" => pool, "state" => "in_use").set(used.in_use as f64);
            gauge!(WAITING, "pool" => pool).set(used.waiting as f64);
            counter!(REPLANNED, "pool" => pool).absolute(used.replanned);
        }
        for (index, (table, _)) in any.queues.lengths().into_iter().enumerate() {
            let rows: usize = threads.iter().map(|thread| thread.queues.lengths()[index].1).sum();
            gauge!(QUEUED, "table" => table).set(rows as f64);
        }
        gauge!(UPLOADS).set(any.uploads.in_progress() as f64);
        gauge!(UPLOAD_BYTES).set(any.uploads.waiting_bytes() as f64);
        gauge!(UPLOAD_RESERVED).set(any.uploads.reserved_bytes() as f64);
    });
}
