//! Puts the service together.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use access_kit::control::AccessControl;
use access_kit::credential::Pages;
use access_kit::guard::AccessGuard;
use actix_cors::Cors;
use actix_web::web;
use postgres_kit::database::{BuildError, Connections, Session, Work};
use postgres_kit::keyring;
use postgres_kit::schema::{self, SchemaError};
use postgres_kit::settings::PoolSettings;
use service_kit::failure::FailureLog;
use service_kit::health::{Readiness, ReadinessReport};
use service_kit::service::{About, Application, ServiceBuilder};
use service_kit::settings::sections::CorsSettings;
use tokio_util::sync::CancellationToken;

use crate::groups::Delivery;
use crate::input::Clock;
use crate::routes;
use crate::service::IngestService;
use crate::settings::Settings;
use crate::store::DatabaseError;
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
    let drain = settings.http.drain_timeout;
    let mut builder = ServiceBuilder::new(ABOUT, &settings.internal, drain, shutdown.clone())?;
    metrics::describe(builder.metrics());
    let settings = Arc::new(settings);
    let access = Arc::new(AccessControl::new(&settings.access, Pages::of_cors(&settings.cors)));
    let threads =
        IngestService::for_each_thread(&settings, clock, delivery, builder.metrics(), &access)?;

    let docs = openapi_kit::routes(&openapi::document(&settings))?;
    let (own, started) = (threads.clone(), Arc::new(AtomicUsize::new(0)));
    let (allowed, described) = (settings.cors.clone(), Arc::clone(&settings));
    let guard = AccessGuard::new(Arc::clone(&access), routes::needs(&settings), builder.metrics());
    builder.serve_public(
        &settings.http,
        settings.http.bounds(),
        Arc::new(guard),
        move || Some(cors(&allowed)),
        move |all| {
            // Called once by each thread. After a panic, actix starts another one, which then
            // shares the service of a thread that is still running.
            let thread = started.fetch_add(1, Ordering::Relaxed) % own.len();
            all.app_data(web::Data::from(Arc::clone(&own[thread]))).configure(docs.clone());
            routes::configure(all, &described);
        },
    )?;

    let checks = Arc::new(Checks::new(&settings)?);
    let readiness = readiness(Arc::clone(&checks), Arc::clone(&access));
    let sample = move || metrics::sample(&threads);
    let mut application = builder.serve_internal(readiness, sample, |_| ())?;
    let keyring = keyring::follow(checks.connections.clone(), access, shutdown.clone());
    application.spawn("keyring", keyring);
    application.spawn("schema check", check_schema(checks, shutdown));
    Ok(application)
}

/// Checks of the database, on a connection that no request keeps waiting.
struct Checks {
    settings: Arc<Settings>,
    connections: Connections,
    /// Whether this release knows the database's schema.
    schema: AtomicBool,
}

impl Checks {
    fn new(settings: &Arc<Settings>) -> Result<Self, BuildError> {
        let pool = PoolSettings { max_connections: NonZeroUsize::MIN, ..settings.pool.clone() };
        let connections =
            Connections::new(&settings.database, &pool, Work::Reads, "ingest-api checks")?;
        Ok(Self { settings: Arc::clone(settings), connections, schema: AtomicBool::new(false) })
    }

    async fn run<T>(
        &self,
        check: impl AsyncFnOnce(&Session) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.connections.run(self.settings.limits.query_timeout.get(), check).await
    }
}

/// Fails if this release does not work on the database's schema. The service may start before the
/// database does, so this waits until the schema version can be read.
async fn check_schema(checks: Arc<Checks>, shutdown: CancellationToken) -> Result<(), SchemaError> {
    let mut failures = FailureLog::default();
    loop {
        let problem = match checks.run(async |session| Ok(session.check_schema().await)).await {
            Ok(Ok(version)) => {
                tracing::info!(schema.version = version, "the schema version was checked");
                break;
            }
            Ok(Err(error)) if error.is_final() => return Err(error),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.with_report(),
        };
        if failures.should_log() {
            tracing::warn!(error = problem, "cannot read the schema version; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(checks.settings.schema.retry_delay.get()) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    checks.schema.store(true, Ordering::Release);
    shutdown.cancelled().await;
    Ok(())
}

/// Any header may be sent: tracing tools add theirs to every request of a page.
fn cors(settings: &CorsSettings) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "POST", "PUT", "DELETE"])
        .allow_any_header()
        .expose_headers(["link", "location", "retry-after", "www-authenticate", "x-request-id"])
        .supports_credentials()
        .max_age(600);
    settings.allowed_origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Ready once the schema was checked and the keyring read, and while the database answers.
fn readiness(checks: Arc<Checks>, access: Arc<AccessControl>) -> Readiness {
    Readiness::new(move || {
        let (checks, access) = (Arc::clone(&checks), Arc::clone(&access));
        async move {
            let mut reasons: Vec<_> = access.problem().map(str::to_owned).into_iter().collect();
            if !checks.schema.load(Ordering::Acquire) {
                reasons.push("the schema version has not been checked yet".to_owned());
            }
            if let Err(error) = checks.run(async |session| Ok(session.ping().await?)).await {
                reasons.push(error.with_report());
            }
            ReadinessReport { reasons, warning: access.warning(), detail: None }
        }
    })
}
