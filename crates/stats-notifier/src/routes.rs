//! `GET /internal/v1/stream`: every version of all topics, for gateways.

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use domain::Version;
use service_kit::problem::{self, Problem};
use statistics_stream::{internal_stream_response, upstream};
use tokio::sync::watch;

use crate::leader::Role;

/// Adds the routes.
pub fn configure(routes: &mut web::ServiceConfig) {
    let stream = web::resource(upstream::PATH)
        .route(web::get().to(stream))
        .default_service(problem::method_not_allowed(&[Method::GET]));
    routes.service(stream);
}

async fn stream(request: HttpRequest, roles: web::Data<watch::Receiver<Role>>) -> HttpResponse {
    let Role::Leader(hub) = roles.borrow().clone() else {
        let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "/problems/not-leading");
        let detail = "This replica does not lead; another may, or this one will.";
        return Problem::new(status, kind, "Not leading", detail).retry_after(1).response();
    };
    // An id that is none of ours is no error: the client gets snapshots.
    let last_event_id = request.headers().get("last-event-id");
    let last_event_id = last_event_id.and_then(|id| id.to_str().ok()?.parse::<Version>().ok());
    match internal_stream_response(&hub, last_event_id) {
        Ok(response) => response,
        Err(error) => Problem::unavailable(error.to_string()).response(),
    }
}
