//! Metrics in Prometheus' text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Each service declares its own metrics in its `metrics.rs`; their names end in the unit. There is
//! no global recorder: each service records to its own [`Metrics`], so that two services in one
//! process, as in tests, do not add up.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio_util::sync::CancellationToken;

/// How often samples are folded into their buckets if the metrics are not requested. Until then,
/// each sample takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The upper bounds of the buckets for durations, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The upper bounds of the buckets for numbers of rows.
const ROWS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0];

/// The metrics of one service.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Metrics {
    /// A recorder without samples.
    ///
    /// # Errors
    /// Never, because no list of bounds is empty.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_rows".to_owned()), &ROWS)?
            .build_recorder();
        let handle = recorder.handle();
        Ok(Self { recorder: Arc::new(recorder), handle })
    }

    /// Runs `record`, in which the macros of the `metrics` crate record to these metrics. So do the
    /// handles that the macros return, even later.
    pub fn with<T>(&self, record: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&*self.recorder, record)
    }

    /// All metrics as text.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps the memory of samples bounded, until shutdown.
    ///
    /// # Errors
    /// Never.
    pub async fn keep_up(
        self,
        shutdown: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(UPKEEP_INTERVAL) => self.handle.run_upkeep(),
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }
}
