//! Puts the service together.

use actix_web::middleware::Compress;
use actix_web::web;
use service_kit::health::Readiness;
use service_kit::service::{About, Application, ServiceBuilder};
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;
use crate::{assets, routes};

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
    let no_cors = || None;
    builder.serve_public(&settings.http, settings.http.bounds(), no_cors, move |all| {
        let compressed = web::scope("").wrap(Compress::default()).configure(routes::configure);
        all.app_data(services.clone()).service(compressed);
    })?;
    Ok(builder.serve_internal(&settings.internal, readiness(), || (), |_| ())?)
}

/// Ready if there is a page to serve.
fn readiness() -> Readiness {
    Readiness::new(|| {
        let reasons = if assets::are_built() {
            Vec::new()
        } else {
            vec!["the page was not built before this program".to_owned()]
        };
        std::future::ready(reasons)
    })
}
