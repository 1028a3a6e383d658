//! Puts the service together.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use service_kit::health::{Readiness, Report};
use service_kit::internal::{About, Internal};
use service_kit::metrics::Metrics;
use service_kit::supervisor::{Supervisor, SupervisorError};
use statistics_stream::{Deliveries, Hub, HubSettings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::daily_verify::{self, LastVerify};
use crate::history::HistoryReader;
use crate::leader::{self, Candidate, Role};
use crate::metrics::{self, LeaderMetrics, VerifyMetrics};
use crate::routes;
use crate::settings::Settings;
use crate::store::Statements;

/// The service, listening but not yet running.
pub struct Application {
    port: u16,
    supervisor: Supervisor,
}

impl Application {
    /// Listens, and starts everything.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn build(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Self> {
        Self::build_with(settings, shutdown, Statements::default())
    }

    /// [`Application::build`] with other statements, for tests.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn build_with(
        settings: Settings,
        shutdown: CancellationToken,
        statements: Statements,
    ) -> anyhow::Result<Self> {
        let drain = settings.stream.drain;
        let (role, roles) = watch::channel(Role::default());
        let (last_verify, verified) = watch::channel(None::<LastVerify>);
        let metrics = Metrics::new()?;
        let leader_metrics = LeaderMetrics::register(&metrics);
        let (verify_roles, verify_metrics) = (roles.clone(), VerifyMetrics::register(&metrics));
        let (sampled, sampled_role) = (metrics.clone(), roles.clone());
        let history = HistoryReader::new(&settings.database, &settings.history)?;
        let hub = hub_settings(&settings);
        let (sampled_history, deliveries) = (history.clone(), Arc::<Deliveries>::default());
        let counted = Arc::clone(&deliveries);
        let internal = Internal {
            about: About {
                service: "stats-notifier",
                version: env!("CARGO_PKG_VERSION"),
                schema: Some(postgres_kit::schema::VERSION),
            },
            readiness: readiness(roles.clone(), verified, shutdown.clone()),
            metrics: metrics.clone(),
            sample: Arc::new(move || {
                let (role, pool) = (sampled_role.borrow(), sampled_history.pool_use());
                metrics::sample(&sampled, role.hub(), &deliveries, pool);
            }),
        };
        let lease = settings.leader.session_timeout.get();
        let leading = routes::Leading { roles, lease };
        let (port, server) = internal.serve(&settings.internal, settings.stream.drain, move |routes| {
            routes
                .app_data(web::Data::new(leading.clone()))
                .app_data(web::Data::new(history.clone()))
                .configure(routes::configure);
        })?;
        let verify = settings.clone();
        let candidate = Candidate {
            settings,
            new_hub: Box::new(move || Hub::with_deliveries(hub.clone(), Arc::clone(&counted))),
            role,
            metrics: leader_metrics,
            statements,
        };
        // Longer than the server's own drain, which then is what ends a stream that does not end.
        let mut supervisor = Supervisor::new(shutdown.clone(), drain + Duration::from_secs(1));
        supervisor.serve("http server", server);
        supervisor.spawn("metrics", metrics.keep_up(shutdown.clone()));
        supervisor.spawn("leader", leader::run(candidate, shutdown.clone()));
        supervisor
            .spawn("verify", daily_verify::run(verify, verify_roles, last_verify, verify_metrics, shutdown));
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
        internal_heartbeat: settings.stream.heartbeat.get(),
        max_subscribers: settings.stream.max_subscribers,
        ..HubSettings::default()
    }
}

/// A standby is ready, for it does its work, which is to wait; its role says so.
fn readiness(
    roles: watch::Receiver<Role>,
    verified: watch::Receiver<Option<LastVerify>>,
    shutdown: CancellationToken,
) -> Readiness {
    Readiness::new(move || {
        let role = roles.borrow().clone();
        let mut reasons = Vec::new();
        if let Role::Away(reason) = &role {
            reasons.push(reason.clone());
        }
        if shutdown.is_cancelled() {
            reasons.push("stopping".to_owned());
        }
        let detail = Some(serde_json::json!({ "role": role.name(), "last_verify": *verified.borrow() }));
        async move { Report { detail, ..Report::of(reasons) } }
    })
}
