//! Puts the service together.

use std::sync::Arc;

use actix_cors::Cors;
use actix_web::web;
use service_kit::health::Readiness;
use service_kit::limits::open_files;
use service_kit::server::Bounds;
use service_kit::service::{About, Application, ServiceBuilder};
use service_kit::settings::sections::CorsSettings;
use statistics_stream::{Hub, upstream};
use tokio_util::sync::CancellationToken;

use crate::handlers::Gateway;
use crate::history::HistoryClient;
use crate::settings::Settings;
use crate::{metrics, routes};

/// What `/version` answers.
pub const ABOUT: About =
    About { service: "sse-gateway", version: env!("CARGO_PKG_VERSION"), schema: None };

/// The share of the drain time within which the hub ends the streams; the rest is for their last
/// bytes.
const STREAMS_SHARE: f64 = 0.8;

/// How many unsent bytes of a stream the operating system buffers (Linux only). A slow client lags
/// behind by this buffer and by its own receive buffer, so it must be small; a fast client is not
/// slowed down.
const UNSENT_BYTES: u32 = 16_384;

/// Listens, and starts everything. The clients' streams come from `hub`. Must be called within a
/// tokio runtime.
///
/// # Errors
/// A port cannot be listened on.
pub fn build(
    settings: &Settings,
    hub: Arc<Hub>,
    shutdown: CancellationToken,
) -> anyhow::Result<Application> {
    warn_about_few_open_files(settings.stream.max_subscribers);
    let drain = settings.http.drain_timeout;
    // The hub drains the streams first, and then the server drains what is left.
    let mut builder = ServiceBuilder::new(ABOUT, drain, shutdown.clone())?.drain_all(drain * 2);
    metrics::describe(builder.metrics());

    let gateway = web::Data::new(Gateway {
        hub: Arc::clone(&hub),
        history: HistoryClient::new(&settings.upstream, &settings.history)?,
        page_limits: (&settings.history).into(),
    });
    let public = routes::public(gateway.clone())?;
    let bounds = settings.http.bounds();
    let bounds = Bounds {
        unsent_bytes: Some(UNSENT_BYTES),
        answers_half_closed: false,
        // A gateway that is full answers 503, instead of leaving clients unanswered.
        connections_per_worker: bounds.connections_per_worker.max(settings.stream.max_subscribers),
        ..bounds
    };
    let allowed = settings.cors.clone();
    builder.serve_public(&settings.http, bounds, move || Some(cors(&allowed)), public)?;

    let readiness = readiness(Arc::clone(&hub));
    let metrics = builder.metrics().clone();
    let sampled = Arc::clone(&hub);
    let sample = move || metrics::sample(&metrics, &sampled);
    let internal = routes::internal(gateway);
    let mut application =
        builder.serve_internal(&settings.internal, readiness, sample, internal)?;

    application.spawn("upstream", upstream::follow(Arc::clone(&hub), settings.upstream.clone()));
    application.spawn("drain", async move {
        shutdown.cancelled().await;
        hub.drain(drain.mul_f64(STREAMS_SHARE)).await;
        Ok::<_, std::io::Error>(())
    });
    Ok(application)
}

fn warn_about_few_open_files(clients: usize) {
    // `Command::execute` has raised the limit.
    let files = open_files();
    if files.is_some_and(|files| usize::try_from(files).is_ok_and(|files| files <= clients)) {
        tracing::warn!(
            limit.open_files = files,
            stream.max_subscribers = clients,
            "each client is an open file, but fewer open files than clients are allowed: raise the hard limit"
        );
    }
}

/// Allows only reads, and never cookies. Any header may be sent: tracing tools add theirs to every
/// request of a page.
fn cors(settings: &CorsSettings) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET"])
        .allow_any_header()
        .expose_headers(["link", "retry-after", "x-request-id"])
        .max_age(600);
    settings.allowed_origins.iter().fold(cors, |cors, origin| match origin.as_str() {
        "*" => cors.allow_any_origin().send_wildcard(),
        origin => cors.allowed_origin(origin),
    })
}

/// Ready once there are counts. Stale counts are marked as such, and are better than none.
fn readiness(hub: Arc<Hub>) -> Readiness {
    Readiness::new(move || {
        let reasons = if hub.has_data() {
            Vec::new()
        } else {
            vec!["no upstream has answered yet".to_owned()]
        };
        std::future::ready(reasons)
    })
}
