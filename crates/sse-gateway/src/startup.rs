//! Puts the service together.

use std::sync::Arc;

use access_kit::control::AccessControl;
use access_kit::credential::Pages;
use access_kit::distribution;
use access_kit::guard::AccessGuard;
use access_kit::shares::Shares;
use actix_cors::Cors;
use actix_web::web;
use service_kit::health::{Readiness, ReadinessReport};
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
    let mut builder = ServiceBuilder::new(ABOUT, &settings.internal, drain, shutdown.clone())?
        .drain_all(drain * 2);
    let secrets = builder.secrets();
    metrics::describe(builder.metrics());

    let access = Arc::new(AccessControl::new(&settings.access, Pages::of_cors(&settings.cors)));
    let gateway = web::Data::new(Gateway {
        hub: Arc::clone(&hub),
        history: HistoryClient::new(&settings.upstream, &settings.history, secrets.clone())?,
        page_limits: (&settings.history).into(),
        access: Arc::clone(&access),
        streams: Shares::of(settings.stream.max_subscribers, "streams"),
    });
    let needs = routes::needs(gateway.page_limits);
    let guard = Arc::new(AccessGuard::new(Arc::clone(&access), needs, builder.metrics()));
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
    builder.serve_public(&settings.http, bounds, guard, move || Some(cors(&allowed)), public)?;

    let readiness = readiness(Arc::clone(&hub), Arc::clone(&access));
    let metrics = builder.metrics().clone();
    let sampled = Arc::clone(&hub);
    let sample = move || metrics::sample(&metrics, &sampled);
    let internal = routes::internal(gateway, Arc::clone(&access), shutdown.clone());
    let mut application = builder.serve_internal(readiness, sample, internal)?;

    let counts = upstream::follow(Arc::clone(&hub), settings.upstream.clone(), secrets.clone());
    application.spawn("upstream", counts);
    let addresses = settings.upstream.addresses.clone();
    let keyring = distribution::follow(Arc::clone(&access), addresses, secrets, shutdown.clone());
    application.spawn("keyring", keyring);
    application.spawn("leases", check_leases(access, Arc::clone(&hub), shutdown.clone()));
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

/// Ends the streams of a key at once when it is revoked.
async fn check_leases(
    access: Arc<AccessControl>,
    hub: Arc<Hub>,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    tokio::select! {
        () = access.on_change(|| hub.check_leases()) => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    }
}

/// Allows only reads. Any header may be sent: tracing tools add theirs to every request of a page.
///
/// Browsers send cookies only to services that name the page's origin and allow credentials, so
/// any page (`*`) reads without a session.
fn cors(settings: &CorsSettings) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET"])
        .allow_any_header()
        .expose_headers(["link", "retry-after", "www-authenticate", "x-request-id"])
        .max_age(600);
    if settings.allowed_origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin().send_wildcard();
    }
    let origins = settings.allowed_origins.iter();
    origins.fold(cors.supports_credentials(), |cors, origin| cors.allowed_origin(origin))
}

/// Ready once there are counts and keys. Stale counts are marked as such, and are better than none.
fn readiness(hub: Arc<Hub>, access: Arc<AccessControl>) -> Readiness {
    Readiness::new(move || {
        let no_counts = (!hub.has_data()).then_some("no upstream has answered yet");
        let reasons = [no_counts, access.problem()].into_iter().flatten().map(str::to_owned);
        let (reasons, warning) = (reasons.collect(), access.warning());
        let detail = serde_json::json!({
            "upstream": hub.upstream(),
            "age_seconds": hub.age().map(|age| age.as_secs_f64()),
        });
        std::future::ready(ReadinessReport { reasons, warning, detail: Some(detail) })
    })
}
