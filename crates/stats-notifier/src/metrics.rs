//! The metrics of this service. Those of HTTP requests are in service-kit.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use postgres_kit::database::PoolUse;
use service_kit::metrics::Metrics;
use statistics_stream::{Deliveries, Hub};

use crate::store::{StoreError, VerifyReport};

const LEADING: &str = "notifier_leading";
const LEAD_BLOCKED: &str = "notifier_lead_blocked";
const TERMS: &str = "notifier_terms_total";
const TICKS: &str = "notifier_ticks_total";
const TICK_DURATION: &str = "notifier_tick_duration_seconds";
const TICK_ROWS: &str = "notifier_ticked_rows_total";
const FLUSH_DURATION: &str = "notifier_flush_duration_seconds";
const PURGE_DURATION: &str = "notifier_purge_duration_seconds";
const CURSOR_LAG: &str = "notifier_cursor_lag_transactions";
const LOG_SIZE: &str = "notifier_count_log_bytes";
const GATE_SHUT: &str = "notifier_gate_shut";
const NOTIFICATIONS: &str = "notifier_notifications_total";
const VERSION_AGE: &str = "notifier_version_age_seconds";
const AGE: &str = "notifier_counts_age_seconds";
const SUBSCRIBERS: &str = "notifier_stream_subscribers";
const DELIVERIES: &str = "notifier_stream_frames_total";
const CONFLATED: &str = "notifier_stream_conflated_frames_total";
const CONNECTIONS: &str = "notifier_history_pool_connections";
const WAITING: &str = "notifier_history_pool_waiting_requests";
const REPLANNED: &str = "notifier_history_replanned_statements_total";

/// The metrics of a leader.
#[derive(Clone)]
pub struct LeaderMetrics {
    pub(crate) leading: Gauge,
    pub(crate) lead_blocked: Gauge,
    pub(crate) terms: Counter,
    pub(crate) ticks_found: Counter,
    pub(crate) ticks_empty: Counter,
    pub(crate) tick_duration: Histogram,
    pub(crate) tick_rows: Counter,
    pub(crate) flush_duration: Histogram,
    pub(crate) purge_duration: Histogram,
    pub(crate) cursor_lag: Gauge,
    pub(crate) log_size: Gauge,
    pub(crate) gate_shut: Gauge,
    pub(crate) notifications: Counter,
}

impl LeaderMetrics {
    /// Registers the metrics.
    pub fn register(metrics: &Metrics) -> Self {
        metrics.with(|| {
            describe_gauge!(LEADING, "Whether this replica leads.");
            describe_gauge!(
                LEAD_BLOCKED,
                "Whether this replica cannot lead although nobody counts: another program holds the lock of the lead."
            );
            describe_counter!(TERMS, "Terms begun by this replica.");
            describe_counter!(TICKS, "Ticks, by whether they found rows.");
            describe_histogram!(TICK_DURATION, "Duration of a tick.");
            describe_counter!(TICK_ROWS, "Log rows that ticks found.");
            describe_histogram!(FLUSH_DURATION, "Duration of a flush of the log into the rollups.");
            describe_histogram!(PURGE_DURATION, "Duration of a purge of the log.");
            describe_gauge!(
                CURSOR_LAG,
                "Transactions between the oldest that the rollups may lack and the newest that memory has seen. \
                 A long transaction raises it."
            );
            describe_gauge!(LOG_SIZE, "Size of the change log on disk, with its index.");
            describe_gauge!(GATE_SHUT, "Whether producers need not notify, because the log is polled anyway.");
            describe_counter!(NOTIFICATIONS, "Notifications received.");
            describe_gauge!(VERSION_AGE, "Time since the published version changed.");
            describe_gauge!(
                AGE,
                "Age of the published counts, which have every event that was committed before. NaN unless this replica leads."
            );
            describe_gauge!(SUBSCRIBERS, "Gateways that are subscribed to the stream.");
            describe_gauge!(CONNECTIONS, "Connections for history queries, by state.");
            describe_gauge!(WAITING, "History queries that wait for a connection.");
            describe_counter!(
                REPLANNED,
                "Statements for history that were prepared again because a table had changed."
            );
            describe_counter!(DELIVERIES, "Frames delivered to gateways.");
            describe_counter!(CONFLATED, "Frames merged into a later one, because the gateway was not ready to read.");
            Self {
                leading: gauge!(LEADING),
                lead_blocked: gauge!(LEAD_BLOCKED),
                terms: counter!(TERMS),
                ticks_found: counter!(TICKS, "found" => "rows"),
                ticks_empty: counter!(TICKS, "found" => "nothing"),
                tick_duration: histogram!(TICK_DURATION),
                tick_rows: counter!(TICK_ROWS),
                flush_duration: histogram!(FLUSH_DURATION),
                purge_duration: histogram!(PURGE_DURATION),
                cursor_lag: gauge!(CURSOR_LAG),
                log_size: gauge!(LOG_SIZE),
                gate_shut: gauge!(GATE_SHUT),
                notifications: counter!(NOTIFICATIONS),
            }
        })
    }

    pub(crate) fn record_tick(&self, rows: u64, took: Duration) {
        if rows > 0 { &self.ticks_found } else { &self.ticks_empty }.increment(1);
        self.tick_rows.increment(rows);
        self.tick_duration.record(took.as_secs_f64());
    }
}

const VERIFY_RUNS: &str = "notifier_verify_runs_total";
const VERIFY_MISMATCHES: &str = "notifier_verify_mismatched_buckets";
const VERIFY_BUCKETS: &str = "notifier_verify_compared_buckets";
const VERIFY_TIME: &str = "notifier_verify_last_success_timestamp_seconds";

/// The metrics of the daily verification.
#[derive(Clone)]
pub struct VerifyMetrics(Metrics);

impl VerifyMetrics {
    /// Registers the metrics.
    pub fn register(metrics: &Metrics) -> Self {
        metrics.with(|| {
            describe_counter!(
                VERIFY_RUNS,
                "Daily verifications, by result: equal, different or failed."
            );
            describe_gauge!(VERIFY_MISMATCHES, "Buckets that the last verification found wrong.");
            describe_gauge!(VERIFY_BUCKETS, "Buckets that the last verification compared.");
            describe_gauge!(
                VERIFY_TIME,
                "End of the last verification that did not fail, as Unix time."
            );
        });
        Self(metrics.clone())
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float, and need not be exact above 2^52"
    )]
    pub(crate) fn record(&self, result: &Result<VerifyReport, StoreError>) {
        self.0.with(|| {
            let label = match result {
                Ok(report) if report.mismatches == 0 => "equal",
                Ok(_) => "different",
                Err(_) => "failed",
            };
            counter!(VERIFY_RUNS, "result" => label).increment(1);
            if let Ok(report) = result {
                gauge!(VERIFY_MISMATCHES).set(report.mismatches as f64);
                gauge!(VERIFY_BUCKETS).set(report.buckets as f64);
                gauge!(VERIFY_TIME).set(time::OffsetDateTime::now_utc().unix_timestamp() as f64);
            }
        });
    }
}

/// Reads what is not recorded as it happens: the hub of the current term, what all terms delivered,
/// and the connections for history queries.
#[expect(clippy::cast_precision_loss, reason = "gateways and connections are few")]
pub(crate) fn sample(metrics: &Metrics, hub: Option<&Hub>, deliveries: &Deliveries, pool: PoolUse) {
    metrics.with(|| {
        gauge!(SUBSCRIBERS).set(hub.map_or(0, Hub::subscribers) as f64);
        gauge!(VERSION_AGE)
            .set(hub.and_then(Hub::version_age).map_or(0.0, |age| age.as_secs_f64()));
        gauge!(AGE).set(hub.and_then(Hub::age).map_or(f64::NAN, |age| age.as_secs_f64()));
        counter!(DELIVERIES).absolute(deliveries.delivered());
        counter!(CONFLATED).absolute(deliveries.conflated());
        gauge!(CONNECTIONS, "state" => "idle").set(pool.idle as f64);
        gauge!(CONNECTIONS, "state" => "in_use").set(pool.in_use as f64);
        gauge!(WAITING).set(pool.waiting as f64);
        counter!(REPLANNED).absolute(pool.replanned);
    });
}
