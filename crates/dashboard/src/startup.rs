//! Puts the service together.

use actix_web::middleware::{Compress, from_fn};
use actix_web::{App, web};
use actix_web_lab::middleware::CatchPanic;
use service_kit::health::Readiness;
use service_kit::observe;
use service_kit::service::{About, Application, ServiceBuilder};
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;
use crate::{assets, routes};

const ABOUT: About =
    About { service: "dashboard", version: env!("CARGO_PKG_VERSION"), schema: None };

/// Listens, and starts everything. Must be called within a tokio runtime.
///
/// # Errors
/// A port cannot be listened on.
pub fn build(settings: &Settings, shutdown: CancellationToken) -> anyhow::Result<Application> {
    let mut builder = ServiceBuilder::new(ABOUT, settings.http.drain, shutdown)?;
    let metrics = web::Data::new(builder.metrics().clone());
    let services = web::Data::new(settings.services.clone());
    let bounds = settings.http.bounds(settings.limits.connections_per_worker.get());
    builder.serve_public(&settings.http, bounds, move || {
        App::new()
            .wrap(CatchPanic::default())
            .wrap(Compress::default())
            .wrap(from_fn(observe::requests))
            .app_data(services.clone())
            .app_data(metrics.clone())
            .configure(routes::configure)
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
