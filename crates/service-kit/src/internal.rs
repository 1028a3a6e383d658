//! The port on which a service is looked after, apart from the one that its clients use: `/livez`, `/readyz`,
//! `/metrics` and `/version`, beside what only other services may ask.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpResponse, web};
use serde_json::json;

use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::settings::sections::InternalSettings;
use crate::{observe, problem, server};

/// What this process is.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// The name of the service.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The schema version that it needs, if it uses the database.
    pub schema: Option<i32>,
}

/// What every service serves on its internal port.
#[derive(Clone)]
pub struct Internal {
    /// What it is.
    pub about: About,
    /// Whether it can do its work.
    pub readiness: Readiness,
    /// Its metrics.
    pub metrics: Metrics,
    /// Records what is not recorded as it happens, such as the size of a pool: called when metrics are asked for.
    pub sample: Arc<dyn Fn() + Send + Sync>,
}

impl Internal {
    /// Listens, and serves this and `more`. Returns the port, too.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn serve(
        self,
        settings: &InternalSettings,
        drain: Duration,
        more: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> std::io::Result<(u16, Server)> {
        let listener = TcpListener::bind((settings.host.as_str(), settings.port))?;
        let port = listener.local_addr()?.port();
        let server = server::serve(listener, settings.bounds(drain), move || {
            App::new()
                .wrap(from_fn(observe::requests))
                .app_data(web::Data::new(self.metrics.clone()))
                .configure(more.clone())
                .configure(|routes| self.routes(routes))
                .default_service(web::to(problem::not_found))
        })?;
        tracing::info!(internal.port = port, "serving health and metrics");
        Ok((port, server))
    }

    fn routes(&self, routes: &mut web::ServiceConfig) {
        self.readiness.routes(routes);
        let (metrics, sample) = (self.metrics.clone(), Arc::clone(&self.sample));
        let rendered = move || {
            sample();
            let answer = HttpResponse::Ok()
                .content_type("text/plain; version=0.0.4; charset=utf-8")
                .insert_header((CACHE_CONTROL, "no-store"))
                .body(metrics.render());
            std::future::ready(answer)
        };
        let About { service, version, schema } = self.about;
        let about = move || {
            let about = json!({
                "service": service,
                "version": version,
                "revision": option_env!("NEWCYCLE_REVISION"),
                "schema": schema,
            });
            std::future::ready(HttpResponse::Ok().json(about))
        };
        routes.route("/metrics", web::get().to(rendered)).route("/version", web::get().to(about));
    }
}
