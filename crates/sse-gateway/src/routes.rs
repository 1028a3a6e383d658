//! The paths: one topic, several topics, and what other gateways ask.

use std::fmt::Write as _;
use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue, LINK};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder, Resource, Route, web};
use domain::{Bucket, Metric, Topic};
use openapi_kit::Endpoint;
use service_kit::observe::RequestId;
use service_kit::problem;
use statistics_stream::{Hub, history, internal_stream_response, stream_response, upstream};

use crate::error::ApiError;
use crate::history::History;
use crate::openapi;
use crate::request::{Asked, Form, Window, last_event_id, of_topic, of_topics};
use crate::settings::HistorySettings;

/// What all paths share.
pub struct Service {
    /// The live state.
    pub hub: Arc<Hub>,
    /// Where history is asked for.
    pub history: History,
    /// What bounds a page of it.
    pub history_limits: HistorySettings,
}

/// The paths, and what is said of each.
pub(crate) fn endpoints(limits: &HistorySettings) -> [Endpoint; 3] {
    [
        Endpoint::at("/statistics").get(many, openapi::many()),
        Endpoint::at("/statistics/item-creation/{unit}")
            .get(item_creation, openapi::one(Metric::ItemCreation, limits)),
        Endpoint::at("/statistics/transfers/{unit}").get(transfers, openapi::one(Metric::Transfers, limits)),
    ]
}

/// Adds the routes. They find the [`Service`] in the application's data.
pub fn configure(routes: &mut web::ServiceConfig, limits: &HistorySettings) {
    for endpoint in endpoints(limits) {
        routes.service(endpoint.resource());
    }
}

/// Adds what only other gateways may ask.
pub fn configure_internal(routes: &mut web::ServiceConfig) {
    routes
        .service(internal(upstream::PATH, web::get().to(stream)))
        .service(internal(history::PATTERN, web::get().to(page)));
}

fn internal(path: &str, get: Route) -> Resource {
    web::resource(path).route(get).default_service(problem::method_not_allowed(&[Method::GET]))
}

async fn item_creation(
    request: HttpRequest,
    unit: web::Path<String>,
    service: web::Data<Service>,
) -> Result<HttpResponse, ApiError> {
    one(&request, Topic::new(Metric::ItemCreation, unit.parse()?), &service).await
}

async fn transfers(
    request: HttpRequest,
    unit: web::Path<String>,
    service: web::Data<Service>,
) -> Result<HttpResponse, ApiError> {
    one(&request, Topic::new(Metric::Transfers, unit.parse()?), &service).await
}

async fn one(request: &HttpRequest, topic: Topic, service: &Service) -> Result<HttpResponse, ApiError> {
    match of_topic(request.query_string(), topic, &service.history_limits)? {
        Asked::Window(asked) => window(request, &service.hub, asked),
        Asked::History(query) => period(request, &service.history, query).await,
    }
}

async fn many(request: HttpRequest, service: web::Data<Service>) -> Result<HttpResponse, ApiError> {
    window(&request, &service.hub, of_topics(request.query_string())?)
}

async fn stream(request: HttpRequest, service: web::Data<Service>) -> Result<HttpResponse, ApiError> {
    Ok(internal_stream_response(&service.hub, last_event_id(&request))?)
}

async fn page(request: HttpRequest, service: web::Data<Service>) -> Result<HttpResponse, ApiError> {
    let page = service.history.page(history::Query::of(&request)?, request_id(&request).as_ref()).await?;
    Ok(HttpResponse::Ok().json(page))
}

fn window(request: &HttpRequest, hub: &Arc<Hub>, asked: Window) -> Result<HttpResponse, ApiError> {
    let Window { selection, heartbeat } = asked;
    match Form::of(request, Form::OF_WINDOW)? {
        Form::Events => Ok(stream_response(hub, selection, last_event_id(request), heartbeat)?),
        Form::Json => {
            let json = hub.snapshot(&selection).ok_or(ApiError::NoData)?;
            Ok(once(Form::Json).body(json))
        }
        Form::Csv => {
            let windows = hub.windows(&selection).ok_or(ApiError::NoData)?;
            let rows = windows.iter().map(|window| (window.topic, &*window.buckets));
            Ok(once(Form::Csv).body(csv(rows)))
        }
    }
}

async fn period(
    request: &HttpRequest,
    history: &History,
    query: history::Query,
) -> Result<HttpResponse, ApiError> {
    let form = Form::of(request, Form::OF_HISTORY)?;
    let page = history.page(query, request_id(request).as_ref()).await?;
    let mut answer = once(form);
    if let Some(next) = page.next {
        let to = page.to.map_or_else(String::new, |to| format!("&to={to}"));
        let link = format!("<{}?from={next}{to}&limit={}>; rel=\"next\"", request.path(), query.limit);
        answer.insert_header((LINK, link));
    }
    match form {
        Form::Csv => Ok(answer.body(csv([(page.topic, &*page.buckets)]))),
        _ => Ok(answer.json(page)),
    }
}

/// The id of the request, for the upstream to log, too.
fn request_id(request: &HttpRequest) -> Option<HeaderValue> {
    request.extensions().get::<RequestId>().map(|RequestId(id)| id.clone())
}

fn csv<'a>(topics: impl IntoIterator<Item = (Topic, &'a [Bucket])>) -> String {
    let mut csv = String::from("topic,time,count\n");
    for (topic, buckets) in topics {
        for bucket in buckets {
            // Writing to a string cannot fail; none of the three needs quoting.
            let _infallible = writeln!(csv, "{topic},{},{}", bucket.time, bucket.count);
        }
    }
    csv
}

/// The head of an answer that is given once.
fn once(form: Form) -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    answer
        .content_type(match form {
            Form::Events => "text/event-stream",
            Form::Json => "application/json",
            Form::Csv => "text/csv; charset=utf-8",
        })
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("vary", "accept"));
    answer
}
