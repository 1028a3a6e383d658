//! Puts the service together.

use std::num::NonZeroUsize;
use std::sync::Arc;

use access_kit::control::AccessControl;
use access_kit::distribution;
use actix_web::web;
use postgres_kit::database::{Connections, PoolSettings, Work};
use postgres_kit::keyring;
use service_kit::health::{Readiness, ReadinessReport};
use service_kit::service::{About, Application, ServiceBuilder};
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

const ABOUT: About = About {
    service: "stats-notifier",
    version: env!("CARGO_PKG_VERSION"),
    schema: Some(postgres_kit::schema::VERSION),
};

/// Listens, and starts everything. Must be called within a tokio runtime.
///
/// # Errors
/// The port cannot be listened on.
pub fn build(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Application> {
    build_with(settings, shutdown, Statements::default())
}

/// [`build`] with other statements, for tests.
///
/// # Errors
/// The port cannot be listened on.
pub fn build_with(
    settings: Settings,
    shutdown: CancellationToken,
    statements: Statements,
) -> anyhow::Result<Application> {
    let drain = settings.stream.drain_timeout;
    let builder = ServiceBuilder::new(ABOUT, &settings.internal, drain, shutdown.clone())?;
    let (role, roles) = watch::channel(Role::default());
    let (last_verify, verified) = watch::channel(None::<LastVerify>);
    let history = HistoryReader::new(&settings.database, &settings.history)?;
    let hub = hub_settings(&settings);
    let deliveries = Arc::<Deliveries>::default();
    let sampled_deliveries = Arc::clone(&deliveries);

    let leader_metrics = LeaderMetrics::register(builder.metrics());
    let verify_metrics = VerifyMetrics::register(builder.metrics());
    let readiness = readiness(roles.clone(), verified);
    let metrics = builder.metrics().clone();
    let sampled_roles = roles.clone();
    let sampled_history = history.clone();
    let sample = move || {
        let role = sampled_roles.borrow();
        metrics::sample(&metrics, role.hub(), &sampled_deliveries, sampled_history.pool_use());
    };
    let leading =
        routes::Leading { roles: roles.clone(), lease: settings.leader.session_timeout.get() };
    let access = Arc::new(AccessControl::for_followers());
    let pool = PoolSettings { max_connections: NonZeroUsize::MIN, ..settings.history.pool.clone() };
    let connections =
        Connections::new(&settings.database, &pool, Work::Reads, "stats-notifier keyring")?;
    let followers = distribution::configure(Arc::clone(&access), shutdown.clone());
    let mut application = builder.serve_internal(readiness, sample, move |routes| {
        routes
            .configure(&followers)
            .app_data(web::Data::new(leading.clone()))
            .app_data(web::Data::new(history.clone()))
            .configure(routes::configure);
    })?;

    application.spawn("keyring", keyring::follow(connections, access, shutdown.clone()));
    let verify =
        daily_verify::run(settings.clone(), roles, last_verify, verify_metrics, shutdown.clone());
    application.spawn("verify", verify);
    let candidate = Candidate {
        settings,
        new_hub: Box::new(move || Hub::with_deliveries(hub.clone(), Arc::clone(&deliveries))),
        role,
        metrics: leader_metrics,
        statements,
    };
    application.spawn("leader", leader::run(candidate, shutdown));
    Ok(application)
}

fn hub_settings(settings: &Settings) -> HubSettings {
    HubSettings {
        internal_heartbeat: settings.stream.heartbeat,
        max_subscribers: settings.stream.max_subscribers,
        ..HubSettings::default()
    }
}

/// A standby is ready, because waiting is its work; `detail.role` tells it apart from the leader.
/// So is one that cannot lead although nobody counts, because it answers queries for history;
/// `detail.lead_problem` says why.
fn readiness(
    roles: watch::Receiver<Role>,
    verified: watch::Receiver<Option<LastVerify>>,
) -> Readiness {
    Readiness::new(move || {
        let role = roles.borrow().clone();
        let detail = serde_json::json!({
            "role": role.name(),
            "age_seconds": role.hub().and_then(statistics_stream::Hub::age).map(|age| age.as_secs_f64()),
            "lead_problem": role.lead_problem().map(ToString::to_string),
            "last_verify": *verified.borrow(),
        });
        let reasons = match role {
            Role::Away(reason) => vec![reason],
            _ => Vec::new(),
        };
        std::future::ready(ReadinessReport {
            reasons,
            detail: Some(detail),
            ..ReadinessReport::default()
        })
    })
}
