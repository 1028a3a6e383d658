//! Puts the service together.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use service_kit::health::{Readiness, Report};
use service_kit::problem;
use service_kit::supervisor::{Supervisor, SupervisorError};
use statistics_stream::{Hub, HubSettings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::leader::{self, Candidate, Recorder};
use crate::routes;
use crate::settings::{Settings, milliseconds};
use crate::store::Statements;

/// The service, listening but not yet running.
pub struct Application {
    port: u16,
    supervisor: Supervisor,
}

/// What a test puts in the place of what the service has.
#[derive(Default)]
pub struct Substitutes {
    /// The SQL that exactness rests on.
    pub statements: Statements,
    /// Receives each version's snapshot.
    pub recorder: Option<Recorder>,
}

impl Application {
    /// Listens, and starts everything.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn build(settings: Settings, shutdown: CancellationToken) -> std::io::Result<Self> {
        Self::build_with(settings, shutdown, Substitutes::default())
    }

    /// [`Application::build`] with some parts replaced.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn build_with(
        settings: Settings,
        shutdown: CancellationToken,
        substitutes: Substitutes,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((settings.http.host.as_str(), settings.http.port))?;
        let port = listener.local_addr()?.port();
        let drain = Duration::from_secs(settings.http.drain_seconds);
        let (lead, leading) = watch::channel(None::<Arc<Hub>>);
        let readiness = readiness(leading.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(leading.clone()))
                .configure(routes::configure)
                .configure(|routes| readiness.routes(routes))
                .default_service(web::to(problem::not_found))
        })
        .workers(settings.http.workers.get())
        .shutdown_timeout(settings.http.drain_seconds)
        .disable_signals()
        .listen(listener)?
        .run();
        tracing::info!(http.port = port, "listening");
        let hub = hub_settings(&settings);
        let candidate = Candidate {
            settings,
            new_hub: Box::new(move || Hub::new(hub.clone())),
            lead,
            statements: substitutes.statements,
            recorder: substitutes.recorder,
        };
        // Longer than the server's own drain, which then is what ends a stream that does not end.
        let mut supervisor = Supervisor::new(shutdown.clone(), drain + Duration::from_secs(1));
        supervisor.serve("http server", server);
        supervisor.spawn("leader", leader::run(candidate, shutdown));
        Ok(Self { port, supervisor })
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Runs until asked to stop, or until a part of it dies.
    ///
    /// # Errors
    /// What died, and of what.
    pub async fn run_until_stopped(self) -> Result<(), SupervisorError> {
        self.supervisor.run_until_stopped().await
    }
}

fn hub_settings(settings: &Settings) -> HubSettings {
    HubSettings {
        // A gateway paces what it shows; a version that waits here is only late.
        pace: Duration::ZERO,
        internal_heartbeat: milliseconds(settings.stream.heartbeat_milliseconds),
        max_subscribers: settings.stream.max_subscribers,
        ..HubSettings::default()
    }
}

/// A standby is ready, for it does its work, which is to wait; its role says so.
fn readiness(leading: watch::Receiver<Option<Arc<Hub>>>) -> Readiness {
    Readiness::new(move || {
        let role = if leading.borrow().is_some() { "leader" } else { "standby" };
        async move {
            let detail = Some(serde_json::json!({ "role": role }));
            Report { detail, ..Report::of(Vec::new()) }
        }
    })
}
