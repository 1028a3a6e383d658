//! The handlers of all paths: each parses its request, and answers from the hub or from history.

use std::fmt::Write as _;
use std::sync::Arc;

use access_kit::control::{AccessControl, Standing};
use access_kit::principal::{Admitted, Principal};
use access_kit::refusal::Ending;
use access_kit::shares::{Share, Shares};
use actix_web::http::header::{CACHE_CONTROL, HeaderValue, LINK};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder, web};
use domain::{Bucket, Metric, Topic};
use service_kit::observe::RequestId;
use service_kit::unsent::UnsentBytes;
use statistics_stream::history::HistoryQuery;
use statistics_stream::{
    AccessEnd, Hub, Lease, StreamAccess, internal_stream_response, last_event_id, stream_response,
};

use crate::error::RequestError;
use crate::history::HistoryClient;
use crate::media_type::MediaType;
use crate::query::{
    PageLimits, StatisticsQuery, WindowQuery, parse_topic_query, parse_topics_query,
};

/// What all handlers share.
pub struct Gateway {
    /// The live windows.
    pub hub: Arc<Hub>,
    /// History beyond the live windows.
    pub history: HistoryClient,
    /// The bounds of a page of history.
    pub page_limits: PageLimits,
    /// Who may use the service.
    pub access: Arc<AccessControl>,
    /// The streams that keys hold.
    pub streams: Arc<Shares>,
}

/// A stream may go on for as long as the key that opened it is valid.
struct KeyLease {
    access: Arc<AccessControl>,
    principal: Arc<Principal>,
    _share: Share,
}

impl Lease for KeyLease {
    fn access(&self) -> Option<StreamAccess> {
        let (expires_in, ended) = match self.access.standing(&self.principal) {
            Standing::Endless => return None,
            Standing::Left(left) => (left.as_secs(), None),
            Standing::Ended(Ending::Revoked) => (0, Some(AccessEnd::Revoked)),
            Standing::Ended(Ending::Expired) => (0, Some(AccessEnd::Expired)),
            Standing::Unknown => (0, Some(AccessEnd::Unknown)),
        };
        Some(StreamAccess { expires_in, ended })
    }
}

pub(crate) async fn item_creation(
    request: HttpRequest,
    unit: web::Path<String>,
    gateway: web::Data<Gateway>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, RequestError> {
    topic(&request, Topic::new(Metric::ItemCreation, unit.parse()?), &gateway, principal).await
}

pub(crate) async fn transfers(
    request: HttpRequest,
    unit: web::Path<String>,
    gateway: web::Data<Gateway>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, RequestError> {
    topic(&request, Topic::new(Metric::Transfers, unit.parse()?), &gateway, principal).await
}

async fn topic(
    request: &HttpRequest,
    topic: Topic,
    gateway: &Gateway,
    principal: Arc<Principal>,
) -> Result<HttpResponse, RequestError> {
    principal.check_topics([topic])?;
    match parse_topic_query(request.query_string(), topic, gateway.page_limits)? {
        StatisticsQuery::Window(query) => windows(request, gateway, query, principal),
        StatisticsQuery::History(query) => {
            history(request, &gateway.history, query, &principal).await
        }
    }
}

pub(crate) async fn topics(
    request: HttpRequest,
    gateway: web::Data<Gateway>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, RequestError> {
    windows(&request, &gateway, parse_topics_query(request.query_string())?, principal)
}

/// The stream of all topics, for other gateways.
pub(crate) async fn internal_stream(
    request: HttpRequest,
    gateway: web::Data<Gateway>,
) -> Result<HttpResponse, RequestError> {
    Ok(internal_stream_response(&gateway.hub, last_event_id(&request))?)
}

/// A page of history, for other gateways.
pub(crate) async fn internal_history(
    request: HttpRequest,
    gateway: web::Data<Gateway>,
) -> Result<HttpResponse, RequestError> {
    let query = HistoryQuery::from_request(&request)?;
    let page = gateway.history.page(query, request_id(&request).as_ref()).await?;
    Ok(HttpResponse::Ok().json(page))
}

fn windows(
    request: &HttpRequest,
    gateway: &Gateway,
    query: WindowQuery,
    principal: Arc<Principal>,
) -> Result<HttpResponse, RequestError> {
    let WindowQuery { selection, heartbeat } = query;
    principal.check_topics(selection.topics())?;
    let hub = &gateway.hub;
    match MediaType::negotiate(request, MediaType::OF_WINDOW)? {
        MediaType::EventStream => {
            let budget = UnsentBytes::of(request);
            let share = gateway.streams.take(&principal, principal.limits().streams)?;
            let access = Arc::clone(&gateway.access);
            let lease = KeyLease { access, principal, _share: share };
            let last = last_event_id(request);
            Ok(stream_response(hub, budget, selection, last, heartbeat, Box::new(lease))?)
        }
        MediaType::Json => {
            let json = hub.snapshot(&selection).ok_or(RequestError::NoData)?;
            Ok(response_once("application/json").body(json))
        }
        MediaType::Csv => {
            let windows = hub.windows(&selection).ok_or(RequestError::NoData)?;
            let topics = windows.iter().map(|window| (window.topic, &*window.buckets));
            Ok(response_once(CSV).body(csv(topics)))
        }
    }
}

async fn history(
    request: &HttpRequest,
    history: &HistoryClient,
    query: HistoryQuery,
    principal: &Principal,
) -> Result<HttpResponse, RequestError> {
    let media_type = MediaType::negotiate(request, MediaType::OF_HISTORY)?;
    let _share = history.share(principal).await?;
    let page = history.page(query, request_id(request).as_ref()).await?;
    let mut response =
        response_once(if media_type == MediaType::Csv { CSV } else { "application/json" });
    if let Some(next) = page.next {
        let to = page.to.map_or_else(String::new, |to| format!("&to={to}"));
        // Relative to the address of the request, because a proxy may have removed a prefix from
        // the path.
        let link = format!("<?from={next}{to}&limit={}>; rel=\"next\"", query.limit);
        response.insert_header((LINK, link));
    }
    match media_type {
        MediaType::Csv => Ok(response.body(csv([(page.topic, &*page.buckets)]))),
        MediaType::Json | MediaType::EventStream => Ok(response.json(page)),
    }
}

fn request_id(request: &HttpRequest) -> Option<HeaderValue> {
    request.extensions().get::<RequestId>().map(|RequestId(id)| id.clone())
}

const CSV: &str = "text/csv; charset=utf-8";

fn csv<'a>(topics: impl IntoIterator<Item = (Topic, &'a [Bucket])>) -> String {
    let mut csv = String::from("topic,time,count\n");
    for (topic, buckets) in topics {
        for bucket in buckets {
            // Writing to a string cannot fail. None of the three values needs quotes.
            let _infallible = writeln!(csv, "{topic},{},{}", bucket.time, bucket.count);
        }
    }
    csv
}

/// The head of a response that is not a stream.
fn response_once(content_type: &str) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .content_type(content_type)
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("vary", "accept"));
    response
}
