//! The names of this service's metrics, and what they mean. Those of requests are service-kit's.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use postgres_kit::database::PoolUse;
use service_kit::metrics::Metrics;

use crate::error::ApiError;
use crate::store::{Outcome, Resource};

const ROWS: &str = "ingest_rows_total";
const INSERT_ROWS: &str = "ingest_insert_rows";
const INSERT_DURATION: &str = "ingest_insert_duration_seconds";
const DATABASE_ERRORS: &str = "ingest_database_errors_total";
const UPLOADS: &str = "ingest_uploads";
const CONNECTIONS: &str = "ingest_pool_connections";
const WAITING: &str = "ingest_pool_waiting_requests";

/// Says what the metrics mean.
pub fn describe(metrics: &Metrics) {
    service_kit::observe::describe(metrics);
    metrics.with(|| {
        describe_counter!(ROWS, "Rows taken, by table and by what became of them.");
        describe_histogram!(INSERT_ROWS, "Rows of one insert, by table.");
        describe_histogram!(
            INSERT_DURATION,
            "Time of one insert, the wait for a connection included, by table."
        );
        describe_counter!(
            DATABASE_ERRORS,
            "Requests that the database failed, by whether it was away or refused."
        );
        describe_gauge!(UPLOADS, "Uploads of many rows under way.");
        describe_gauge!(CONNECTIONS, "Connections to the database, by whether one is in use.");
        describe_gauge!(WAITING, "Requests that wait for a connection to the database.");
        counter!(DATABASE_ERRORS, "kind" => "away").increment(0);
        counter!(DATABASE_ERRORS, "kind" => "refused").increment(0);
    });
}

/// An insert was tried.
pub(crate) fn inserted<R: Resource>(
    metrics: &Metrics,
    rows: usize,
    seconds: f64,
    result: &Result<Vec<Outcome<R>>, ApiError>,
) {
    metrics.with(|| {
        #[expect(clippy::cast_precision_loss, reason = "a chunk has far fewer than 2^52 rows")]
        histogram!(INSERT_ROWS, "table" => R::TABLE).record(rows as f64);
        histogram!(INSERT_DURATION, "table" => R::TABLE).record(seconds);
        for outcome in result.iter().flatten() {
            let outcome = match outcome {
                Outcome::Created(_) => "created",
                Outcome::Repeated(_) => "repeated",
                Outcome::Rejected(_) => "rejected",
            };
            counter!(ROWS, "table" => R::TABLE, "outcome" => outcome).increment(1);
        }
    });
}

/// The database failed a request, if that is what went wrong.
pub(crate) fn failed(metrics: &Metrics, error: &ApiError) {
    let kind = match error {
        ApiError::Unavailable(_) => "away",
        ApiError::Database(_) => "refused",
        _ => return,
    };
    metrics.with(|| counter!(DATABASE_ERRORS, "kind" => kind).increment(1));
}

/// What is not recorded as it happens.
#[expect(clippy::cast_precision_loss, reason = "connections and uploads are few")]
pub(crate) fn sample(metrics: &Metrics, pool: PoolUse, uploads: usize) {
    metrics.with(|| {
        gauge!(CONNECTIONS, "state" => "idle").set(pool.idle as f64);
        gauge!(CONNECTIONS, "state" => "in_use").set(pool.in_use as f64);
        gauge!(WAITING).set(pool.waiting as f64);
        gauge!(UPLOADS).set(uploads as f64);
    });
}
