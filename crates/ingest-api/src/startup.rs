//! Puts the service together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_cors::Cors;
use actix_web::web;
use postgres_kit::database::{Connections, Session};
use postgres_kit::schema::{self, SchemaError};
use service_kit::health::Readiness;
use service_kit::service::{About, Application, ServiceBuilder};
use service_kit::settings::sections::CorsSettings;
use tokio_util::sync::CancellationToken;

use crate::groups::{Delivery, Queues};
use crate::input::Clock;
use crate::routes;
use crate::service::IngestService;
use crate::settings::Settings;
use crate::store::DatabaseError;
use crate::uploads::Uploads;
use crate::{metrics, openapi};

/// What `/version` answers.
pub const ABOUT: About = About {
    service: "ingest-api",
    version: env!("CARGO_PKG_VERSION"),
    schema: Some(schema::VERSION),
};

/// Listens, and starts everything. Must be called within a tokio runtime.
///
/// # Errors
/// A port cannot be listened on.
pub fn build(
    settings: Settings,
    clock: Clock,
    shutdown: CancellationToken,
) -> anyhow::Result<Application> {
    build_with(settings, clock, Delivery::default(), shutdown)
}

/// As [`build`], but answers groups of rows as `delivery` says.
///
/// # Errors
/// As [`build`].
pub fn build_with(
    settings: Settings,
    clock: Clock,
    delivery: Delivery,
    shutdown: CancellationToken,
) -> anyhow::Result<Application> {
    let mut builder = ServiceBuilder::new(ABOUT, settings.http.drain_timeout, shutdown.clone())?;
    metrics::describe(builder.metrics());
    let http = settings.http.clone();
    let internal = settings.internal.clone();
    let writes = Connections::new(&settings.database, &settings.pool, ABOUT.service)?;
    let reads = Connections::new(&settings.database, &settings.read_pool, "ingest-api reads")?;
    let uploads = Uploads::new(&settings.bulk);
    let metrics = builder.metrics().clone();
    let queues = Queues::new(
        writes.clone(),
        settings.writes.clone(),
        settings.limits.query_timeout.get(),
        delivery,
        metrics.clone(),
    );
    let service =
        web::Data::new(IngestService { settings, reads, writes, queues, clock, uploads, metrics });

    let docs = openapi_kit::routes(&openapi::document(&service.settings))?;
    let shared = service.clone();
    let allowed = service.settings.cors.clone();
    builder.serve_public(
        &http,
        http.bounds(),
        move || Some(cors(&allowed)),
        move |all| {
            all.app_data(shared.clone()).configure(docs.clone());
            routes::configure(all, &shared.settings);
        },
    )?;

    let service = service.into_inner();
    let checked = Arc::new(AtomicBool::new(false));
    let readiness = readiness(Arc::clone(&service), Arc::clone(&checked));
    let sampled = Arc::clone(&service);
    let sample = move || {
        let pools = [("read", sampled.reads.pool_use()), ("write", sampled.writes.pool_use())];
        metrics::sample(&sampled.metrics, pools, &sampled.queues, &sampled.uploads);
    };
    let mut application = builder.serve_internal(&internal, readiness, sample, |_| ())?;
    application.spawn("schema check", check_schema(service, checked, shutdown));
    Ok(application)
}

/// Fails if this release does not know the database's schema. The service may start before the
/// database does, so this waits until the schema version can be read.
async fn check_schema(
    service: Arc<IngestService>,
    checked: Arc<AtomicBool>,
    shutdown: CancellationToken,
) -> Result<(), SchemaError> {
    let timeout = service.settings.limits.query_timeout.get();
    loop {
        let check = async |session: &Session| Ok(session.check_schema().await);
        let answer: Result<_, DatabaseError> = service.writes.run(timeout, check).await;
        match answer {
            Ok(Ok(())) => break,
            Ok(Err(
                error @ (SchemaError::Missing | SchemaError::Older(_) | SchemaError::Newer(_)),
            )) => {
                return Err(error);
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "cannot read the schema version; trying again");
            }
            Err(error) => {
                tracing::warn!(
                    error = error.with_report(),
                    "cannot read the schema version; trying again"
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(service.settings.schema.retry_delay.get()) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    checked.store(true, Ordering::Release);
    shutdown.cancelled().await;
    Ok(())
}

/// Any header may be sent: tracing tools add theirs to every request of a page.
fn cors(settings: &CorsSettings) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "POST", "PUT", "DELETE"])
        .allow_any_header()
        .expose_headers(["link", "location", "retry-after", "x-request-id"])
        .max_age(600);
    settings.allowed_origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Ready once the schema was checked, and while the database answers.
fn readiness(service: Arc<IngestService>, checked: Arc<AtomicBool>) -> Readiness {
    Readiness::new(move || {
        let service = Arc::clone(&service);
        let checked = checked.load(Ordering::Acquire);
        async move {
            let mut reasons = Vec::new();
            if !checked {
                reasons.push("the schema version has not been checked yet".to_owned());
            }
            let timeout = service.settings.limits.query_timeout.get();
            let ping = async |session: &Session| Ok(session.ping().await?);
            let answer: Result<_, DatabaseError> = service.writes.run(timeout, ping).await;
            if let Err(error) = answer {
                reasons.push(error.with_report());
            }
            reasons
        }
    })
}
