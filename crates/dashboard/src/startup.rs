//! Puts the service together.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::middleware::{Compress, from_fn};
use actix_web::{App, web};
use actix_web_lab::middleware::CatchPanic;
use service_kit::health::{Readiness, Report};
use service_kit::internal::{About, Internal};
use service_kit::metrics::Metrics;
use service_kit::supervisor::{Supervisor, SupervisorError};
use service_kit::{observe, server};
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;
use crate::{assets, routes};

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
    /// An address cannot be listened on.
    pub fn build(settings: &Settings, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((settings.http.host.as_str(), settings.http.port))?;
        let port = listener.local_addr()?.port();
        let metrics = Metrics::new()?;
        observe::describe(&metrics);
        let (services, recorded) =
            (web::Data::new(settings.services.clone()), web::Data::new(metrics.clone()));
        let bounds = settings.http.bounds(settings.limits.connections_per_worker.get());
        let server = server::serve(listener, bounds, move || {
            App::new()
                .wrap(CatchPanic::default())
                .wrap(Compress::default())
                .wrap(from_fn(observe::requests))
                .app_data(services.clone())
                .app_data(recorded.clone())
                .configure(routes::configure)
        })?;
        tracing::info!(http.port = port, "listening");
        let about = About { service: "dashboard", version: env!("CARGO_PKG_VERSION"), schema: None };
        let readiness = readiness(shutdown.clone());
        let internal = Internal { about, readiness, metrics: metrics.clone(), sample: Arc::new(|| ()) };
        let (internal_port, internal_server) =
            internal.serve(&settings.internal, settings.http.drain, |_| ())?;
        let drain = settings.http.drain + Duration::from_secs(1);
        let mut supervisor = Supervisor::new(shutdown.clone(), drain);
        supervisor.serve("http server", server);
        supervisor.serve("internal server", internal_server);
        supervisor.spawn("metrics", metrics.keep_up(shutdown));
        Ok(Self { port, internal_port, supervisor })
    }

    /// The port that the page is served on.
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

/// Ready where it has a page to serve.
fn readiness(shutdown: CancellationToken) -> Readiness {
    Readiness::new(move || {
        let mut reasons = Vec::new();
        if !assets::are_built() {
            reasons.push("the page was not built before this program".to_owned());
        }
        if shutdown.is_cancelled() {
            reasons.push("stopping".to_owned());
        }
        std::future::ready(Report::of(reasons))
    })
}
