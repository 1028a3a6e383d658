//! What gateways request: the stream of all topics, and pages of history.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use service_kit::failure::SharedFailureLog;
use service_kit::problem::{self, Problem};
use statistics_stream::history::{self, HistoryQuery};
use statistics_stream::{Hub, internal_stream_response, last_event_id, upstream};
use tokio::sync::watch;

use crate::history::{HistoryError, HistoryReader};
use crate::leader::Role;
use crate::store::StoreError;

/// The outages of the database, which all requests notice.
static OUTAGE: SharedFailureLog = SharedFailureLog::new();

/// Whether this replica leads.
#[derive(Debug, Clone)]
pub struct Leading {
    /// The role, as far as this replica knows.
    pub roles: watch::Receiver<Role>,
    /// How long after a tick this replica is certainly the only leader. The server ends the session
    /// of a silent leader no sooner than this.
    pub lease: Duration,
}

impl Leading {
    /// The hub of the current term, if this replica certainly leads. A leader that was frozen may
    /// have been replaced without knowing it, and would take subscribers of its successor back in
    /// time.
    fn hub(&self) -> Option<Arc<Hub>> {
        match &*self.roles.borrow() {
            Role::Leader(hub) if hub.was_live_within(self.lease) => Some(Arc::clone(hub)),
            Role::Leader(_) | Role::Away(_) | Role::Standby(_) => None,
        }
    }
}

/// Registers the routes.
pub fn configure(routes: &mut web::ServiceConfig) {
    let stream = web::resource(upstream::PATH)
        .route(web::get().to(stream))
        .default_service(problem::method_not_allowed(&[Method::GET]));
    let history = web::resource(history::PATTERN)
        .route(web::get().to(page))
        .default_service(problem::method_not_allowed(&[Method::GET]));
    routes.service(stream).service(history);
}

async fn page(request: HttpRequest, history: web::Data<HistoryReader>) -> HttpResponse {
    let query = match HistoryQuery::from_request(&request) {
        Ok(query) => query,
        Err(error) => {
            let (status, kind) = (StatusCode::BAD_REQUEST, "/problems/invalid-query");
            return Problem::new(status, kind, "Invalid query", error.to_string()).response();
        }
    };
    match history.page(query).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error) => history_problem(&error).response(),
    }
}

fn history_problem(error: &HistoryError) -> Problem {
    match error {
        HistoryError::NotKept { kept_since, .. } => Problem::new(
            StatusCode::GONE,
            history::NOT_KEPT,
            "Not kept any more",
            error.to_string(),
        )
        .member("kept_since", kept_since.to_string()),
        HistoryError::Store(StoreError::NeverCounted) => Problem::unavailable(error.to_string()),
        HistoryError::Store(error) if !error.is_temporary() => {
            tracing::error!(error = ?error, "history cannot be read from the database");
            Problem::internal()
        }
        HistoryError::Store(_) => {
            // In an outage, each request fails for the same reason.
            if OUTAGE.should_log() {
                tracing::warn!(error = %error, "no history, because the database does not answer");
            } else {
                tracing::debug!(error = %error, "no history, because the database does not answer");
            }
            Problem::unavailable("the database does not answer")
        }
    }
}

async fn stream(request: HttpRequest, leading: web::Data<Leading>) -> HttpResponse {
    let Some(hub) = leading.hub() else {
        let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "/problems/not-leading");
        let detail = "This replica does not lead. Another one does, or this one soon will.";
        return Problem::new(status, kind, "Not leading", detail).retry_after(1).response();
    };
    // An unknown id is no error: the client gets snapshots.
    match internal_stream_response(&hub, last_event_id(&request)) {
        Ok(response) => response,
        Err(error) => Problem::unavailable(error.to_string()).response(),
    }
}
