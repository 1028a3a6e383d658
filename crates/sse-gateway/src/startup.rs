//! Puts the service together.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_cors::Cors;
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use actix_web_lab::middleware::CatchPanic;
use service_kit::health::{Readiness, Report};
use service_kit::internal::{About, Internal};
use service_kit::metrics::Metrics;
use service_kit::server::Bounds;
use service_kit::settings::comma_separated;
use service_kit::supervisor::{Supervisor, SupervisorError};
use service_kit::{observe, problem, server};
use statistics_stream::{Hub, upstream};
use tokio_util::sync::CancellationToken;

use crate::handlers::Gateway;
use crate::history::HistoryClient;
use crate::settings::Settings;
use crate::{metrics, routes};

/// The service, listening but not yet running.
pub struct Application {
    port: u16,
    internal_port: u16,
    hub: Arc<Hub>,
    supervisor: Supervisor,
}

impl Application {
    /// Listens, and starts everything. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn build(settings: &Settings, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((settings.http.host.as_str(), settings.http.port))?;
        let port = listener.local_addr()?.port();
        let drain = settings.http.drain;
        let hub = Hub::new(settings.hub());
        let readiness = readiness(Arc::clone(&hub), shutdown.clone());
        let metrics = Metrics::new()?;
        metrics::describe(&metrics);
        let history = HistoryClient::new(&settings.upstream, &settings.history)?;
        let page_limits = (&settings.history).into();
        let gateway = web::Data::new(Gateway { hub: Arc::clone(&hub), history, page_limits });
        let public = routes::public(gateway.clone())?;
        let origins = settings.cors.allowed_origins.clone();
        let recorded = web::Data::new(metrics.clone());
        let bounds = Bounds {
            unsent_bytes: Some(settings.stream.unsent_bytes.get()),
            answers_half_closed: false,
            ..settings.http.bounds(settings.stream.max_clients)
        };
        let server = server::serve(listener, bounds, move || {
            App::new()
                .wrap(CatchPanic::default())
                .wrap(cors(&origins))
                .wrap(from_fn(observe::requests))
                .app_data(recorded.clone())
                .configure(public.clone())
                .default_service(web::to(problem::not_found))
        })?;
        tracing::info!(http.port = port, "listening");
        let about = About { service: "sse-gateway", version: env!("CARGO_PKG_VERSION"), schema: None };
        let (sampled, sampled_hub) = (metrics.clone(), Arc::clone(&hub));
        let sample = Arc::new(move || metrics::sample(&sampled, &sampled_hub));
        let internal = Internal { about, readiness, metrics: metrics.clone(), sample };
        let (internal_port, internal_server) =
            internal.serve(&settings.internal, settings.http.drain, routes::internal(gateway))?;
        // The server's own drain is what ends a request that does not end; the supervisor's comes
        // after.
        let mut supervisor = Supervisor::new(shutdown.clone(), drain * 2 + Duration::from_secs(1));
        supervisor.serve("http server", server);
        supervisor.serve("internal server", internal_server);
        supervisor.spawn("metrics", metrics.keep_up(shutdown.clone()));
        supervisor
            .spawn("upstream", upstream::follow(Arc::clone(&hub), settings.upstream(), shutdown.clone()));
        let draining = Arc::clone(&hub);
        supervisor.spawn("drain", async move {
            shutdown.cancelled().await;
            draining.drain(drain.mul_f64(0.8)).await;
            Ok::<_, std::io::Error>(())
        });
        Ok(Self { port, internal_port, hub, supervisor })
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port of its health and metrics, and of what other gateways follow.
    #[must_use]
    pub const fn internal_port(&self) -> u16 {
        self.internal_port
    }

    /// The hub that it serves from.
    #[must_use]
    pub const fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Runs until asked to stop, or until a part of it dies.
    ///
    /// # Errors
    /// What died, and of what.
    pub async fn run_until_stopped(self) -> Result<(), SupervisorError> {
        self.supervisor.run_until_stopped().await
    }
}

/// Only reading, and never with cookies.
fn cors(origins: &str) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET"])
        .allowed_headers(["accept", "cache-control", "last-event-id"])
        .max_age(600);
    comma_separated(origins).fold(cors, |cors, origin| match origin {
        "*" => cors.allow_any_origin().send_wildcard(),
        origin => cors.allowed_origin(origin),
    })
}

/// Ready once there are numbers, and until it is asked to stop: stale numbers, marked so, are
/// better than none.
fn readiness(hub: Arc<Hub>, shutdown: CancellationToken) -> Readiness {
    Readiness::new(move || {
        let mut reasons = Vec::new();
        if !hub.has_data() {
            reasons.push("no upstream has answered yet".to_owned());
        }
        if shutdown.is_cancelled() {
            reasons.push("stopping".to_owned());
        }
        async move { Report::of(reasons) }
    })
}
