//! Builds and runs a service: a public port if it has one, an internal port, tasks, and a graceful
//! shutdown.
//!
//! The internal port serves `/livez`, `/readyz`, `/metrics` and `/version`, and what only other
//! services may request. It asks for a secret ([`crate::internal`]).

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_cors::Cors;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::middleware::{Condition, from_fn};
use actix_web::{App, HttpResponse, web};
use actix_web_lab::middleware::CatchPanic;
use metrics_exporter_prometheus::BuildError;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::command::REVISION;
use crate::guard::{self, Guard};
use crate::health::Readiness;
use crate::host::{self, HostRules};
use crate::internal::{InternalGuard, InternalSecrets};
use crate::metrics::Metrics;
use crate::server::Bounds;
use crate::settings::SettingsError;
use crate::settings::sections::{HttpSettings, InternalSettings};
use crate::supervisor::{Supervisor, SupervisorError, TaskError};
use crate::unsent::{self, UnsentBytes};
use crate::visitors::Visitors;
use crate::{observe, problem, security_headers, server};

/// How much longer than the servers' own drain all tasks together may take.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(1);

/// What `/version` answers.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// The name of the service.
    pub service: &'static str,
    /// The version of its package.
    pub version: &'static str,
    /// The schema version it needs, if it uses the database.
    pub schema: Option<i32>,
}

/// A service cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The internal secret cannot be read.
    #[error(transparent)]
    Secrets(#[from] SettingsError),
    /// See [`Metrics::new`].
    #[error(transparent)]
    Metrics(#[from] BuildError),
}

/// A port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {}:{}, which {} sets: {source}",
    .address.host, .address.port, .address.setting
)]
pub struct ListenError {
    address: Address,
    source: io::Error,
}

/// Where a server listens, and the setting of its port.
#[derive(Debug, Clone)]
struct Address {
    host: String,
    port: u16,
    setting: &'static str,
}

/// What bounds the connections of a port.
struct Limits {
    bounds: Bounds,
    visitors: Visitors,
}

/// A service that is being put together: first its public port if it has one, then its internal
/// port.
pub struct ServiceBuilder {
    about: About,
    drain: Duration,
    shutdown: CancellationToken,
    metrics: Metrics,
    supervisor: Supervisor,
    internal: InternalSettings,
    secrets: InternalSecrets,
    public: Option<Public>,
}

/// The public port, and the budget of its answers.
struct Public {
    port: u16,
    unsent: UnsentBytes,
}

impl ServiceBuilder {
    /// A service that `shutdown` stops, and whose open requests then have `drain` to finish. Must
    /// be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError::Secrets`]; for the other, see [`Metrics::new`].
    pub fn new(
        about: About,
        internal: &InternalSettings,
        drain: Duration,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let secrets = InternalSecrets::open(&internal.secret_file)?;
        let metrics = Metrics::new()?;
        observe::describe(&metrics);
        let mut supervisor = Supervisor::new(shutdown.clone(), drain + SHUTDOWN_MARGIN);
        supervisor.spawn("metrics", metrics.clone().keep_up(shutdown.clone()));
        supervisor.spawn("internal secrets", secrets.clone().keep_up(shutdown.clone()));
        let internal = internal.clone();
        Ok(Self { about, drain, shutdown, metrics, supervisor, internal, secrets, public: None })
    }

    /// Gives all tasks together this long to end, if they do more than the servers after each
    /// other.
    #[must_use]
    pub fn drain_all(mut self, drain: Duration) -> Self {
        self.supervisor.set_drain(drain + SHUTDOWN_MARGIN);
        self
    }

    /// What this service presents to the internal ports of others.
    #[must_use]
    pub fn secrets(&self) -> InternalSecrets {
        self.secrets.clone()
    }

    /// The metrics of the service.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Serves `routes` on the public port, to the pages that `cors` allows and to whom `guard`
    /// admits.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub fn serve_public(
        &mut self,
        settings: &HttpSettings,
        bounds: Bounds,
        guard: Arc<dyn Guard>,
        cors: impl Fn() -> Option<Cors> + Clone + Send + 'static,
        routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> Result<(), ListenError> {
        let address =
            Address { host: settings.host.clone(), port: settings.port, setting: "http.port" };
        let rules = web::Data::new(HostRules::from(settings));
        let guarded = web::Data::from(guard);
        let unsent = UnsentBytes::new(settings.max_unsent_bytes, bounds.answer);
        UnsentBytes::describe(&self.metrics);
        let limits = Limits { bounds, visitors: Visitors::new(settings, &self.metrics) };
        let port = self.serve("http server", &address, limits, &unsent, cors, move |all| {
            all.app_data(rules.clone()).app_data(guarded.clone());
            routes(all);
        })?;
        tracing::info!(http.port = port, "listening");
        self.public = Some(Public { port, unsent });
        Ok(())
    }

    /// Serves the internal port, with `routes` in addition to those of every service. `sample` runs
    /// before metrics are rendered, and records those that are not recorded as they change.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub fn serve_internal(
        mut self,
        readiness: Readiness,
        sample: impl Fn() + Send + Sync + 'static,
        routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> Result<Application, ListenError> {
        let public = self.public.take();
        let public_port = public.as_ref().map(|public| public.port);
        let internal = Internal {
            about: self.about,
            unsent: public.map(|public| public.unsent),
            shutdown: self.shutdown.clone(),
            readiness,
            metrics: self.metrics.clone(),
            sample: Arc::new(sample),
        };
        let InternalSettings { host, port, .. } = &self.internal;
        let address = Address { host: host.clone(), port: *port, setting: "internal.port" };
        let bounds = self.internal.bounds(self.drain);
        let limits = Limits { bounds, visitors: Visitors::unlimited() };
        let guard: Arc<dyn Guard> = Arc::new(InternalGuard(self.secrets.clone()));
        let guard = web::Data::from(guard);
        let unsent = UnsentBytes::unlimited();
        let no_cors = || None;
        let port =
            self.serve("internal server", &address, limits, &unsent, no_cors, move |all| {
                all.app_data(guard.clone());
                routes(all);
                internal.routes(all);
            })?;
        tracing::info!(internal.port = port, "serving health and metrics");
        Ok(Application { public_port, internal_port: port, supervisor: self.supervisor })
    }

    /// Serves an address, and returns its port.
    fn serve(
        &mut self,
        name: &'static str,
        address: &Address,
        limits: Limits,
        unsent: &UnsentBytes,
        cors: impl Fn() -> Option<Cors> + Clone + Send + 'static,
        routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> Result<u16, ListenError> {
        let failed = |source| ListenError { address: address.clone(), source };
        let listener = TcpListener::bind((address.host.as_str(), address.port)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let metrics = web::Data::new(self.metrics.clone());
        let shared = unsent.clone();
        let server = server::serve(listener, limits.bounds, limits.visitors, unsent, move || {
            let cors = cors();
            App::new()
                .wrap(CatchPanic::default())
                .wrap(from_fn(unsent::limit))
                .wrap(from_fn(guard::check))
                // Inside of CORS, so that a page of an allowed origin can read why it was refused.
                .wrap(from_fn(host::check))
                .wrap(Condition::new(cors.is_some(), cors.unwrap_or_default()))
                .wrap(from_fn(security_headers::add))
                .wrap(from_fn(observe::requests))
                .app_data(metrics.clone())
                .app_data(shared.clone())
                .configure(routes.clone())
                .default_service(web::to(problem::not_found))
        });
        self.supervisor.serve(name, server.map_err(failed)?);
        Ok(port)
    }
}

/// A service that listens, and runs its tasks.
pub struct Application {
    public_port: Option<u16>,
    internal_port: u16,
    supervisor: Supervisor,
}

impl Application {
    /// The port that clients use: the public one, or the internal one of a service without it.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.public_port.unwrap_or(self.internal_port)
    }

    /// The internal port.
    #[must_use]
    pub const fn internal_port(&self) -> u16 {
        self.internal_port
    }

    /// Runs a task. It must end soon after the shutdown token is cancelled, and not before.
    pub fn spawn<E: Into<TaskError>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.supervisor.spawn(name, task);
    }

    /// Runs until the service is asked to stop, or until one of its tasks fails.
    ///
    /// # Errors
    /// The task that failed, and why.
    pub async fn run_until_stopped(self) -> Result<(), SupervisorError> {
        self.supervisor.run_until_stopped().await
    }
}

#[derive(Clone)]
struct Internal {
    about: About,
    unsent: Option<UnsentBytes>,
    shutdown: CancellationToken,
    readiness: Readiness,
    metrics: Metrics,
    sample: Arc<dyn Fn() + Send + Sync>,
}

impl Internal {
    fn routes(&self, routes: &mut web::ServiceConfig) {
        self.readiness.routes(&self.shutdown, routes);
        let metrics = self.metrics.clone();
        let sample = Arc::clone(&self.sample);
        let unsent = self.unsent.clone();
        let rendered = move || {
            sample();
            if let Some(unsent) = &unsent {
                unsent.sample(&metrics);
            }
            let answer = HttpResponse::Ok()
                .content_type("text/plain; version=0.0.4; charset=utf-8")
                .insert_header((CACHE_CONTROL, "no-store"))
                .body(metrics.render());
            std::future::ready(answer)
        };
        let About { service, version, schema } = self.about;
        let about = move || {
            let about = json!({
                "service": service,
                "version": version,
                "revision": REVISION,
                "schema": schema,
            });
            std::future::ready(HttpResponse::Ok().json(about))
        };
        routes.route("/metrics", web::get().to(rendered)).route("/version", web::get().to(about));
    }
}
