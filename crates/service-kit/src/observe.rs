//! Gives every request an id, which each log line of the request carries, and records its metrics.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, web};
use metrics::{counter, describe_counter, describe_histogram, histogram};
use tracing::Instrument;

use crate::metrics::Metrics;

/// The header with the request's id. The client's id is used if it sends one, and the answer has
/// it, too.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of a client's id, in bytes.
pub const REQUEST_ID_BYTES: usize = 128;

const REQUESTS: &str = "http_server_requests_total";
const DURATION: &str = "http_server_request_duration_seconds";

/// The id of the request being served.
#[derive(Debug, Clone)]
pub struct RequestId(pub HeaderValue);

/// The pattern of the route that a request has, such as `/items/{id}`, because the number of paths
/// is unbounded.
#[derive(Debug, Clone)]
struct MatchedRoute(Option<String>);

/// The pattern of the route that a request has, such as `/items/{id}`; `None` if it has none.
pub fn matched_route(request: &HttpRequest) -> Option<String> {
    match request.extensions().get() {
        Some(MatchedRoute(route)) => route.clone(),
        None => find_route(request),
    }
}

/// By the path as the router reads it: `/%69tems` is `/items`. [`HttpRequest::match_pattern`] looks
/// at the path as it was sent.
fn find_route(request: &HttpRequest) -> Option<String> {
    request.resource_map().match_pattern(request.match_info().as_str())
}

/// Describes the metrics of requests.
pub fn describe(metrics: &Metrics) {
    metrics.with(|| {
        describe_counter!(REQUESTS, "Requests answered, by method, route and status.");
        describe_histogram!(
            DURATION,
            "From a request's head to its answer's head, by method and route."
        );
    });
}

/// Middleware for [`actix_web::middleware::from_fn`]. The application's data must contain
/// [`Metrics`].
///
/// # Errors
/// The errors of the wrapped service.
pub async fn requests(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| is_plain(id))
        .cloned()
        .unwrap_or_else(new_id);
    request.extensions_mut().insert(RequestId(id.clone()));
    let metrics = request.app_data::<web::Data<Metrics>>().cloned();
    let method = method_label(request.method());
    let route = find_route(request.request());
    request.extensions_mut().insert(MatchedRoute(route.clone()));
    let route = route.unwrap_or_else(|| "none".to_owned());
    let span = tracing::info_span!(
        "request",
        request.id = id.to_str().unwrap_or_default(),
        http.method = method,
        http.route = route
    );
    let started = Instant::now();
    let mut answer = next.call(request).instrument(span).await;
    let status = match &mut answer {
        Ok(response) => {
            response.headers_mut().insert(REQUEST_ID, id);
            response.status()
        }
        Err(error) => error.as_response_error().status_code(),
    };
    if let Some(metrics) = metrics {
        metrics.with(|| {
            histogram!(DURATION, "method" => method, "route" => route.clone())
                .record(started.elapsed().as_secs_f64());
            counter!(REQUESTS, "method" => method, "route" => route, "status" => status.as_u16().to_string())
                .increment(1);
        });
    }
    answer
}

/// The label of a method. HEAD counts as GET. Unknown methods become "other": clients can send
/// arbitrary names, and each would create a new time series.
const fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Whether an id can be logged and forwarded without escaping.
fn is_plain(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

fn new_id() -> HeaderValue {
    let id = uuid::Uuid::now_v7().to_string();
    // Hexadecimal digits and hyphens.
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
