//! The names of this service's metrics, and what they mean. Those of requests are service-kit's.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use service_kit::metrics::Metrics;
use statistics_stream::{Hub, Upstream};

const CLIENTS: &str = "gateway_stream_subscribers";
const DELIVERIES: &str = "gateway_stream_frames_total";
const CONFLATED: &str = "gateway_stream_conflated_frames_total";
const VERSION_AGE: &str = "gateway_version_age_seconds";
const LIVE: &str = "gateway_upstream_live";

/// Says what the metrics mean.
pub(crate) fn describe(metrics: &Metrics) {
    service_kit::observe::describe(metrics);
    metrics.with(|| {
        describe_gauge!(CLIENTS, "Clients and gateways that follow a stream.");
        describe_counter!(DELIVERIES, "Frames handed to them.");
        describe_counter!(
            CONFLATED,
            "Frames that they got within a later one, because they were not ready to read."
        );
        describe_gauge!(VERSION_AGE, "Time since the published version changed.");
        describe_gauge!(LIVE, "Whether the numbers follow the database: 1, or 0 where they are stale.");
    });
}

/// What is not recorded as it happens.
#[expect(clippy::cast_precision_loss, reason = "clients are far fewer than 2^52")]
pub(crate) fn sample(metrics: &Metrics, hub: &Hub) {
    metrics.with(|| {
        gauge!(CLIENTS).set(hub.subscribers() as f64);
        counter!(DELIVERIES).absolute(hub.deliveries().delivered());
        counter!(CONFLATED).absolute(hub.deliveries().conflated());
        gauge!(VERSION_AGE).set(hub.version_age().map_or(0.0, |age| age.as_secs_f64()));
        gauge!(LIVE).set(if hub.condition() == (true, Upstream::Live) { 1.0 } else { 0.0 });
    });
}
