//! This service's metrics, except those of HTTP requests, which are service-kit's.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use service_kit::metrics::Metrics;
use statistics_stream::{Hub, UpstreamStatus};

const CLIENTS: &str = "gateway_stream_subscribers";
const DELIVERIES: &str = "gateway_stream_frames_total";
const CONFLATED: &str = "gateway_stream_conflated_frames_total";
const VERSION_AGE: &str = "gateway_version_age_seconds";
const AGE: &str = "gateway_counts_age_seconds";
const UPSTREAM_AGE: &str = "gateway_upstream_counts_age_seconds";
const LIVE: &str = "gateway_upstream_live";

/// Registers the help texts.
pub(crate) fn describe(metrics: &Metrics) {
    metrics.with(|| {
        describe_gauge!(CLIENTS, "Open streams of clients and of other gateways.");
        describe_counter!(DELIVERIES, "Frames that subscribers got.");
        describe_counter!(
            CONFLATED,
            "Frames that subscribers got as part of a later one, because they were not ready for it."
        );
        describe_gauge!(VERSION_AGE, "Time since the last version was published.");
        describe_gauge!(
            AGE,
            "Age of the published counts, which have every event that was committed before. NaN before the first."
        );
        describe_gauge!(
            UPSTREAM_AGE,
            "Age of the counts when the upstream last sent its status, by its own report. NaN before the first."
        );
        describe_gauge!(LIVE, "1 if the counts follow the database, 0 if they are stale or there are none.");
    });
}

/// Records the values that are read at each scrape.
#[expect(clippy::cast_precision_loss, reason = "clients are far fewer than 2^52")]
pub(crate) fn sample(metrics: &Metrics, hub: &Hub) {
    let live = hub.has_data() && hub.upstream() == UpstreamStatus::Live;
    metrics.with(|| {
        gauge!(CLIENTS).set(hub.subscribers() as f64);
        counter!(DELIVERIES).absolute(hub.deliveries().delivered());
        counter!(CONFLATED).absolute(hub.deliveries().conflated());
        gauge!(VERSION_AGE).set(hub.version_age().map_or(0.0, |age| age.as_secs_f64()));
        gauge!(AGE).set(hub.age().map_or(f64::NAN, |age| age.as_secs_f64()));
        gauge!(UPSTREAM_AGE).set(hub.upstream_age().map_or(f64::NAN, |age| age.as_secs_f64()));
        gauge!(LIVE).set(if live { 1.0 } else { 0.0 });
    });
}
