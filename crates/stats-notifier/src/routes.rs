//! `GET /internal/v1/stream`: every version of all topics, for gateways.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use domain::Version;
use service_kit::problem::{self, Problem};
use statistics_stream::{Hub, internal_stream_response, upstream};
use tokio::sync::watch;

use crate::leader::Role;

/// Tells whether this replica leads.
#[derive(Debug, Clone)]
pub struct Leading {
    /// Its role, as far as it knows.
    pub roles: watch::Receiver<Role>,
    /// How long after a tick nobody else can lead: the server ends the session of a silent leader no sooner.
    pub lease: Duration,
}

impl Leading {
    /// The hub of the present term, where this replica leads for certain. One that was frozen may have been replaced
    /// without knowing: what it shows would take whoever has already followed its successor back in time.
    fn hub(&self) -> Option<Arc<Hub>> {
        match &*self.roles.borrow() {
            Role::Leader(hub) if hub.was_live_within(self.lease) => Some(Arc::clone(hub)),
            Role::Leader(_) | Role::Away(_) | Role::Standby => None,
        }
    }
}

/// Adds the routes.
pub fn configure(routes: &mut web::ServiceConfig) {
    let stream = web::resource(upstream::PATH)
        .route(web::get().to(stream))
        .default_service(web::to(problem::method_not_allowed));
    routes.service(stream);
}

async fn stream(request: HttpRequest, leading: web::Data<Leading>) -> HttpResponse {
    let Some(hub) = leading.hub() else {
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
