//! Puts the service together.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_cors::Cors;
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use actix_web_lab::middleware::CatchPanic;
use postgres_kit::database::Connections;
use postgres_kit::schema::{self, SchemaError};
use service_kit::health::{Readiness, Report};
use service_kit::internal::{About, Internal};
use service_kit::metrics::Metrics;
use service_kit::settings::comma_separated;
use service_kit::supervisor::{Supervisor, SupervisorError};
use service_kit::{observe, problem, server};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::routes;
use crate::service::IngestService;
use crate::settings::{CorsSettings, Settings};
use crate::store::StoreError;
use crate::{metrics, openapi};

/// The service, listening but not yet running.
pub struct Application {
    port: u16,
    internal_port: u16,
    supervisor: Supervisor,
}

impl Application {
    /// Listens, and starts everything.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn build(settings: Settings, clock: Clock, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((settings.http.host.as_str(), settings.http.port))?;
        let port = listener.local_addr()?.port();
        let store = Connections::new(&settings.database, &settings.pool, "ingest-api")?;
        let metrics = Metrics::new()?;
        metrics::describe(&metrics);
        let checked = Arc::new(AtomicBool::new(false));
        let readiness = readiness(&settings, store.clone(), Arc::clone(&checked), shutdown.clone());
        let uploads = Semaphore::new(settings.bulk.concurrent_uploads.get());
        let (http, connections) = (settings.http.clone(), settings.limits.connections_per_worker.get());
        let internal = settings.internal.clone();
        let service =
            web::Data::new(IngestService { settings, store, clock, uploads, metrics: metrics.clone() });
        let docs = openapi_kit::routes(&openapi::document(&service.settings))?;
        let (shared, recorded) = (service.clone(), web::Data::new(metrics.clone()));
        let server = server::serve(listener, http.bounds(connections), move || {
            App::new()
                .wrap(CatchPanic::default())
                .wrap(cors(&shared.settings.cors))
                .wrap(from_fn(observe::requests))
                .app_data(shared.clone())
                .app_data(recorded.clone())
                .configure(|routes| routes::configure(routes, &shared.settings))
                .configure(docs.clone())
                .default_service(web::to(problem::not_found))
        })?;
        tracing::info!(http.port = port, "listening");
        let about = About {
            service: "ingest-api",
            version: env!("CARGO_PKG_VERSION"),
            schema: Some(postgres_kit::schema::VERSION),
        };
        let sampled = service.clone().into_inner();
        let sample = Arc::new(move || {
            let under_way =
                sampled.settings.bulk.concurrent_uploads.get() - sampled.uploads.available_permits();
            metrics::sample(&sampled.metrics, sampled.store.pool_use(), under_way);
        });
        let internal_server = Internal { about, readiness, metrics: metrics.clone(), sample };
        let (internal_port, internal_server) = internal_server.serve(&internal, http.drain, |_| ())?;
        let drain = http.drain + Duration::from_secs(1);
        let mut supervisor = Supervisor::new(shutdown.clone(), drain);
        supervisor.serve("http server", server);
        supervisor.serve("internal server", internal_server);
        supervisor.spawn("metrics", metrics.keep_up(shutdown.clone()));
        supervisor.spawn("schema check", check_schema(service.into_inner(), checked, shutdown));
        Ok(Self { port, internal_port, supervisor })
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port of its health and metrics.
    #[must_use]
    pub const fn internal_port(&self) -> u16 {
        self.internal_port
    }

    /// Runs until asked to stop, or until a part of it dies.
    ///
    /// # Errors
    /// What died, and of what.
    pub async fn run_until_stopped(self) -> Result<(), SupervisorError> {
        self.supervisor.run_until_stopped().await
    }
}

/// Refuses a schema that this release does not know, as soon as the database can be asked: the service may be
/// started before the database is.
async fn check_schema(
    service: Arc<IngestService>,
    checked: Arc<AtomicBool>,
    shutdown: CancellationToken,
) -> Result<(), SchemaError> {
    let timeout = service.settings.limits.query_timeout.get();
    loop {
        let check = async |client: &deadpool_postgres::Client| Ok(schema::check(client).await);
        let answer: Result<_, StoreError> = service.store.run(timeout, check).await;
        match answer {
            Ok(Ok(())) => break,
            Ok(Err(error @ (SchemaError::Missing | SchemaError::Older(_) | SchemaError::Newer(_)))) => {
                return Err(error);
            }
            Ok(Err(error)) => tracing::warn!(error = %error, "the schema could not be checked; trying again"),
            Err(error) => tracing::warn!(error = %error, "the schema could not be checked; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(service.settings.schema.retry.get()) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    checked.store(true, Ordering::Release);
    shutdown.cancelled().await;
    Ok(())
}

fn cors(settings: &CorsSettings) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "POST", "PUT", "DELETE"])
        .allowed_headers(["content-type", "idempotency-key"])
        .expose_headers(["location", "retry-after"])
        .max_age(600);
    comma_separated(&settings.allowed_origins).fold(cors, Cors::allowed_origin)
}

fn readiness(
    settings: &Settings,
    store: Connections,
    checked: Arc<AtomicBool>,
    shutdown: CancellationToken,
) -> Readiness {
    let timeout = settings.limits.query_timeout.get();
    Readiness::new(move || {
        let (store, checked) = (store.clone(), checked.load(Ordering::Acquire));
        let stopping = shutdown.is_cancelled();
        async move {
            let mut reasons = Vec::new();
            if stopping {
                reasons.push("stopping".to_owned());
            }
            if !checked {
                reasons.push("the schema has not been checked yet".to_owned());
            }
            let ping =
                async |client: &deadpool_postgres::Client| Ok(client.batch_execute("SELECT 1").await?);
            let answer: Result<(), StoreError> = store.run(timeout, ping).await;
            if let Err(error) = answer {
                reasons.push(error.to_string());
            }
            Report::of(reasons)
        }
    })
}
