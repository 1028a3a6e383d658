//! `GET /livez`: the process serves requests. `GET /readyz`: it can do its work or not; the reasons
//! and details are for requests with the internal secret.

use std::pin::Pin;
use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::internal;

/// The result of a readiness check.
#[derive(Debug, Clone, Default)]
pub struct ReadinessReport {
    /// Why the service cannot do its work; empty if it can.
    pub reasons: Vec<String>,
    /// Further information for operators, such as the role of a replica.
    pub detail: Option<Value>,
    /// What everyone should know.
    pub warning: Option<&'static str>,
}

impl From<Vec<String>> for ReadinessReport {
    fn from(reasons: Vec<String>) -> Self {
        Self { reasons, ..Self::default() }
    }
}

#[derive(Serialize)]
struct Answer {
    ready: bool,
    /// Missing without the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

type Check = dyn Fn() -> Pin<Box<dyn Future<Output = ReadinessReport> + Send>> + Send + Sync;

/// A service's readiness check. It runs for each request, so it must be cheap and bounded.
#[derive(Clone)]
pub struct Readiness(Arc<Check>);

impl Readiness {
    /// Readiness as `check` determines it. A service that is stopping is never ready, even if
    /// `check` returns no reasons.
    pub fn new<F>(check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output: Into<ReadinessReport>> + Send + 'static,
    {
        let check = Arc::new(check);
        Self(Arc::new(move || {
            let check = Arc::clone(&check);
            Box::pin(async move { check().await.into() })
        }))
    }

    /// Adds `/livez` and `/readyz`.
    pub(crate) fn routes(&self, shutdown: &CancellationToken, routes: &mut web::ServiceConfig) {
        let check = Arc::clone(&self.0);
        let shutdown = shutdown.clone();
        let ready = move |request: HttpRequest| {
            let report = check();
            let shutdown = shutdown.clone();
            let is_trusted = internal::is_trusted(&request);
            async move {
                let ReadinessReport { mut reasons, detail, warning } = report.await;
                if shutdown.is_cancelled() {
                    reasons.push("stopping".to_owned());
                }
                let ready = reasons.is_empty();
                let mut response =
                    if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
                response.insert_header((CACHE_CONTROL, "no-store")).json(Answer {
                    ready,
                    reasons: is_trusted.then_some(reasons),
                    detail: detail.filter(|_| is_trusted),
                    warning,
                })
            }
        };
        routes
            .route("/livez", web::get().to(|| async { HttpResponse::Ok().body("live\n") }))
            .route("/readyz", web::get().to(ready));
    }
}
