//! What gateways ask: the stream of every version of all topics, and pages of history.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use postgres_kit::database::is_away;
use service_kit::problem::{self, Problem};
use statistics_stream::history::{self, HistoryQuery};
use statistics_stream::{Hub, internal_stream_response, last_event_id, upstream};
use tokio::sync::watch;

use crate::history::{History, HistoryError};
use crate::leader::Role;
use crate::store::StoreError;

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
        .default_service(problem::method_not_allowed(&[Method::GET]));
    let history = web::resource(history::PATTERN)
        .route(web::get().to(page))
        .default_service(problem::method_not_allowed(&[Method::GET]));
    routes.service(stream).service(history);
}

async fn page(request: HttpRequest, history: web::Data<History>) -> HttpResponse {
    let query = match HistoryQuery::from_request(&request) {
        Ok(query) => query,
        Err(error) => {
            let (status, kind) = (StatusCode::BAD_REQUEST, "/problems/invalid-query");
            return Problem::new(status, kind, "Invalid query", error.to_string()).response();
        }
    };
    match history.page(query).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error @ HistoryError::NotKept { kept_since, .. }) => {
            Problem::new(StatusCode::GONE, history::NOT_KEPT, "Not kept any more", error.to_string())
                .member("kept_since", kept_since.to_string())
                .response()
        }
        Err(HistoryError::Store(error @ StoreError::NeverCounted)) => {
            Problem::unavailable(error.to_string()).response()
        }
        Err(HistoryError::Store(StoreError::Postgres(error))) if !is_away(&error) => {
            tracing::error!(error = ?error, "the database refused to read history");
            Problem::internal().response()
        }
        Err(error) => {
            tracing::warn!(error = %error, "no history");
            Problem::unavailable("the database does not answer").response()
        }
    }
}

async fn stream(request: HttpRequest, leading: web::Data<Leading>) -> HttpResponse {
    let Some(hub) = leading.hub() else {
        let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "/problems/not-leading");
        let detail = "This replica does not lead; another may, or this one will.";
        return Problem::new(status, kind, "Not leading", detail).retry_after(1).response();
    };
    // An id that is none of ours is no error: the client gets snapshots.
    match internal_stream_response(&hub, last_event_id(&request)) {
        Ok(response) => response,
        Err(error) => Problem::unavailable(error.to_string()).response(),
    }
}
