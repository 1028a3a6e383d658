//! All paths: which handler answers each, and how the OpenAPI document describes it.
//!
//! Invariant: [`endpoints`] has one entry per public path. The routes and the document are both
//! made from it, so every path that is served is described.

use std::sync::Arc;

use access_kit::control::AccessControl;
use access_kit::distribution;
use access_kit::guard::{Need, Needs};
use access_kit::scope::Permission;
use actix_web::http::Method;
use actix_web::{Resource, Route, web};
use domain::Metric;
use openapi_kit::Endpoint;
use service_kit::problem;
use statistics_stream::{history, upstream};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

use crate::handlers::{self, Gateway};
use crate::openapi;
use crate::query::PageLimits;
use crate::schemas::schemas;

const READ: Need = Need::Permission(Permission::StatisticsRead);

fn endpoints(limits: PageLimits) -> [Endpoint; 4] {
    [
        openapi_kit::access::endpoint(),
        Endpoint::at("/statistics").get(READ, handlers::topics, openapi::topics()),
        Endpoint::at("/statistics/item-creation/{unit}").get(
            READ,
            handlers::item_creation,
            openapi::topic(Metric::ItemCreation, limits),
        ),
        Endpoint::at("/statistics/transfers/{unit}").get(
            READ,
            handlers::transfers,
            openapi::topic(Metric::Transfers, limits),
        ),
    ]
}

/// The OpenAPI document of all public paths.
pub fn document(limits: PageLimits) -> OpenApi {
    openapi_kit::describe(openapi::info(), endpoints(limits), schemas())
}

/// What the public paths need. A handler of counts also checks each topic.
pub(crate) fn needs(limits: PageLimits) -> Needs {
    openapi_kit::needs(&endpoints(limits))
}

/// The public paths, with the OpenAPI document and its pages.
///
/// # Errors
/// The document cannot be serialized.
pub fn public(
    gateway: web::Data<Gateway>,
) -> serde_json::Result<impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static> {
    let limits = gateway.page_limits;
    let docs = openapi_kit::routes(&document(limits))?;
    Ok(move |routes: &mut web::ServiceConfig| {
        routes.app_data(gateway.clone()).configure(&docs);
        for endpoint in endpoints(limits) {
            routes.service(endpoint.resource());
        }
    })
}

/// The paths for other gateways.
pub fn internal(
    gateway: web::Data<Gateway>,
    access: Arc<AccessControl>,
    shutdown: CancellationToken,
) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    let keyring = distribution::configure(access, shutdown);
    move |routes: &mut web::ServiceConfig| {
        routes
            .app_data(gateway.clone())
            .configure(&keyring)
            .service(internal_resource(upstream::PATH, web::get().to(handlers::internal_stream)))
            .service(internal_resource(
                history::PATTERN,
                web::get().to(handlers::internal_history),
            ));
    }
}

fn internal_resource(path: &str, get: Route) -> Resource {
    web::resource(path).route(get).default_service(problem::method_not_allowed(&[Method::GET]))
}
