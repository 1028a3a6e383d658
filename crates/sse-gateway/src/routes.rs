//! The paths: one topic, several topics, and the stream of all for other gateways.

use std::fmt::Write as _;
use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use domain::{Metric, Topic};
use service_kit::openapi::Endpoint;
use service_kit::problem;
use statistics_stream::{Hub, Selection, internal_stream_response, stream_response, upstream};

use crate::error::ApiError;
use crate::openapi;
use crate::request::{Form, last_event_id, selection};

/// The paths, and what is said of each.
pub(crate) fn endpoints() -> [Endpoint; 3] {
    [
        Endpoint::at("/statistics").get(many, openapi::many()),
        Endpoint::at("/statistics/item-creation/{unit}")
            .get(item_creation, openapi::one(Metric::ItemCreation)),
        Endpoint::at("/statistics/transfers/{unit}").get(transfers, openapi::one(Metric::Transfers)),
    ]
}

/// Adds the routes. They find the hub in the application's data.
pub fn configure(routes: &mut web::ServiceConfig) {
    for endpoint in endpoints() {
        routes.service(endpoint.resource());
    }
}

/// Adds what only other gateways may ask.
pub fn configure_internal(routes: &mut web::ServiceConfig) {
    let stream = web::resource(upstream::PATH).route(web::get().to(internal));
    routes.service(stream.default_service(problem::method_not_allowed(&[Method::GET])));
}

async fn item_creation(
    request: HttpRequest,
    unit: web::Path<String>,
    hub: web::Data<Arc<Hub>>,
) -> Result<HttpResponse, ApiError> {
    let topic = Topic::new(Metric::ItemCreation, unit.parse()?);
    answer(&request, &hub, selection(&request, Some(topic))?)
}

async fn transfers(
    request: HttpRequest,
    unit: web::Path<String>,
    hub: web::Data<Arc<Hub>>,
) -> Result<HttpResponse, ApiError> {
    let topic = Topic::new(Metric::Transfers, unit.parse()?);
    answer(&request, &hub, selection(&request, Some(topic))?)
}

async fn many(request: HttpRequest, hub: web::Data<Arc<Hub>>) -> Result<HttpResponse, ApiError> {
    answer(&request, &hub, selection(&request, None)?)
}

async fn internal(request: HttpRequest, hub: web::Data<Arc<Hub>>) -> Result<HttpResponse, ApiError> {
    Ok(internal_stream_response(&hub, last_event_id(&request))?)
}

fn answer(request: &HttpRequest, hub: &Arc<Hub>, selection: Selection) -> Result<HttpResponse, ApiError> {
    match Form::of(request)? {
        Form::Events => Ok(stream_response(hub, selection, last_event_id(request))?),
        Form::Json => {
            let json = hub.snapshot(&selection).ok_or(ApiError::NoData)?;
            Ok(once("application/json", json))
        }
        Form::Csv => {
            let windows = hub.windows(&selection).ok_or(ApiError::NoData)?;
            let mut csv = String::from("topic,time,count\n");
            for window in windows {
                for bucket in window.buckets {
                    // Writing to a string cannot fail; none of the three needs quoting.
                    let _infallible = writeln!(csv, "{},{},{}", window.topic, bucket.time, bucket.count);
                }
            }
            Ok(once("text/csv; charset=utf-8", csv))
        }
    }
}

fn once(content_type: &'static str, body: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("vary", "accept"))
        .body(body)
}
