//! Puts the service together.

use std::sync::Arc;

use access_kit::control::AccessControl;
use access_kit::distribution;
use access_kit::guard::AccessGuard;
use actix_web::web;
use service_kit::health::Readiness;
use service_kit::service::{About, Application, ServiceBuilder};
use tokio_util::sync::CancellationToken;

use crate::assets::Assets;
use crate::routes;
use crate::settings::Settings;

/// What `/version` answers.
pub const ABOUT: About =
    About { service: "dashboard", version: env!("CARGO_PKG_VERSION"), schema: None };

/// Listens, and starts everything. Must be called within a tokio runtime.
///
/// # Errors
/// A port cannot be listened on.
pub fn build(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Application> {
    let drain = settings.http.drain_timeout;
    let mut builder = ServiceBuilder::new(ABOUT, &settings.internal, drain, shutdown.clone())?;
    let secrets = builder.secrets();
    let services = web::Data::new(settings.services);
    let assets = web::Data::new(Assets::load());
    let readiness = readiness(assets.clone());
    let no_cors = || None;
    let access = Arc::new(AccessControl::for_followers());
    let checked = web::Data::from(Arc::clone(&access));
    let needs = routes::needs();
    let guard = Arc::new(AccessGuard::new(Arc::clone(&access), needs, builder.metrics()));
    builder.serve_public(&settings.http, settings.http.bounds(), guard, no_cors, move |all| {
        all.app_data(services.clone())
            .app_data(assets.clone())
            .app_data(checked.clone())
            .configure(routes::configure);
    })?;
    let mut application = builder.serve_internal(readiness, || (), |_| ())?;
    let keyring = distribution::follow(access, settings.upstream.addresses, secrets, shutdown);
    application.spawn("keyring", keyring);
    Ok(application)
}

/// Ready if there is a page to serve. It needs no list of keys for that: open pages go on without
/// this service, and a login is answered 503 until there is one.
fn readiness(assets: web::Data<Assets>) -> Readiness {
    Readiness::new(move || {
        let reasons = if assets.are_built() {
            Vec::new()
        } else {
            vec!["the page was not built before this program".to_owned()]
        };
        std::future::ready(reasons)
    })
}
