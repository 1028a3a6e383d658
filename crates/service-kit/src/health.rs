//! `GET /livez`: the process serves requests. `GET /readyz`: it can do its work, and if not, why.

use std::pin::Pin;
use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use serde::Serialize;

/// What a service says of its own readiness.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether work may be sent to it.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
    /// What an operator may want to know beside it, such as the role of a replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl Report {
    /// Ready, unless there are reasons why not.
    #[must_use]
    pub const fn of(reasons: Vec<String>) -> Self {
        Self { ready: reasons.is_empty(), reasons, detail: None }
    }
}

type Check = dyn Fn() -> Pin<Box<dyn Future<Output = Report> + Send>> + Send + Sync;

/// How a service finds out whether it is ready: asked anew by each request, so it must be cheap and bounded.
#[derive(Clone)]
pub struct Readiness(Arc<Check>);

impl Readiness {
    /// Readiness as `check` tells it.
    pub fn new<F>(check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Report> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(check())))
    }

    /// Adds `/livez` and `/readyz`.
    pub fn routes(&self, routes: &mut web::ServiceConfig) {
        let check = self.clone();
        let ready = move || {
            let check = check.clone();
            async move {
                let report = (check.0)().await;
                let mut response =
                    if report.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
                response.insert_header((CACHE_CONTROL, "no-store")).json(report)
            }
        };
        routes
            .route("/livez", web::get().to(|| async { HttpResponse::Ok().body("live\n") }))
            .route("/readyz", web::get().to(ready));
    }
}
