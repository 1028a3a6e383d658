//! Puts the service together.

use std::sync::Arc;

use access_kit::control::AccessControl;
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
    let mut builder = ServiceBuilder::new(ABOUT, settings.http.drain_timeout, shutdown)?;
    let services = web::Data::new(settings.services);
    let assets = web::Data::new(Assets::load());
    let readiness = readiness(assets.clone());
    let no_cors = || None;
    // The page and its files have no data.
    let access = Arc::new(AccessControl::for_followers());
    let guard = Arc::new(AccessGuard::new(access, routes::needs(), builder.metrics()));
    builder.serve_public(&settings.http, settings.http.bounds(), guard, no_cors, move |all| {
        all.app_data(services.clone()).app_data(assets.clone()).configure(routes::configure);
    })?;
    Ok(builder.serve_internal(&settings.internal, readiness, || (), |_| ())?)
}

/// Ready if there is a page to serve.
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
