//! The paths. Each parses what it was sent, asks the store, and answers.

use actix_web::http::header::{CONTENT_TYPE, LOCATION};
use actix_web::web::{self, Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openapi_kit::Endpoint;
use postgres_kit::database::Connections;
use service_kit::metrics::Metrics;
use time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::{ApiError, Rejection};
use crate::input::{Context, Input, NewBaseItem, NewItem, NewOwner, NewTransfer, NewUser, parse};
use crate::model::{BaseItem, Item, New, Transfer, User};
use crate::page::Page;
use crate::settings::Settings;
use crate::store::{self, Outcome, Resource};
use crate::{bulk, metrics, openapi};

/// What all paths share.
pub struct Service {
    /// All settings.
    pub settings: Settings,
    /// The database.
    pub store: Connections,
    /// What time it is.
    pub clock: Clock,
    /// How many uploads more may begin.
    pub uploads: Semaphore,
    /// What is recorded.
    pub metrics: Metrics,
}

impl Service {
    /// What a row takes from its surroundings.
    #[must_use]
    pub fn context(&self) -> Context {
        let ahead = Duration::try_from(self.settings.limits.ahead).unwrap_or(Duration::MAX);
        Context { now: self.clock.now(), ahead, key: None }
    }

    async fn ask<T>(
        &self,
        work: impl AsyncFnOnce(&deadpool_postgres::Client) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let answer = self.store.run(self.settings.limits.query_timeout.get(), work).await;
        answer.inspect_err(|error| metrics::failed(&self.metrics, error))
    }

    /// Stores rows, and tells of each what became of it, in their order: every insert of this service comes by here.
    ///
    /// # Errors
    /// The database; rows may then have been stored, and the same call again will say so.
    pub async fn insert<R: Resource>(
        &self,
        timeout: std::time::Duration,
        rows: &[New<R>],
    ) -> Result<Vec<Outcome<R>>, ApiError> {
        let started = Instant::now();
        let result = self.store.run(timeout, async |client| store::insert(client, rows).await).await;
        metrics::inserted(&self.metrics, rows.len(), started.elapsed().as_secs_f64(), &result);
        result.inspect_err(|error| metrics::failed(&self.metrics, error))
    }
}

/// The media type of a body of one row.
pub(crate) const JSON: &str = "application/json";

/// The media type of a body of many rows.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// The paths, and what is said of each.
pub(crate) fn endpoints(settings: &Settings) -> [Endpoint; 12] {
    [
        Endpoint::at("/base-items")
            .post(create::<NewBaseItem>, openapi::create::<NewBaseItem>(settings))
            .get(list::<BaseItem>, openapi::list::<BaseItem>(settings)),
        Endpoint::at("/base-items/{id}").get(get::<BaseItem>, openapi::get::<BaseItem>()),
        Endpoint::at("/users")
            .post(create::<NewUser>, openapi::create::<NewUser>(settings))
            .get(list::<User>, openapi::list::<User>(settings)),
        Endpoint::at("/users/{id}").get(get::<User>, openapi::get::<User>()),
        Endpoint::at("/users/{id}/items").get(owned, openapi::owned(settings)),
        Endpoint::at("/items")
            .post(create::<NewItem>, openapi::create::<NewItem>(settings))
            .get(list::<Item>, openapi::list::<Item>(settings)),
        Endpoint::at("/items/{id}")
            .get(get::<Item>, openapi::get::<Item>())
            .delete(delete::<Item>, openapi::delete_item()),
        Endpoint::at("/items/{id}/owner").get(owner, openapi::owner()),
        Endpoint::at("/items/{id}/transfers").get(history, openapi::history(settings)),
        Endpoint::at("/items/{id}/ownership").put(give, openapi::give(settings)),
        Endpoint::at("/transfers")
            .post(create::<NewTransfer>, openapi::create::<NewTransfer>(settings))
            .get(list::<Transfer>, openapi::list::<Transfer>(settings)),
        Endpoint::at("/transfers/{id}")
            .get(get::<Transfer>, openapi::get::<Transfer>())
            .delete(delete::<Transfer>, openapi::delete::<Transfer>()),
    ]
}

/// Adds the routes. They find the [`Service`] in the application's data.
pub fn configure(routes: &mut web::ServiceConfig, settings: &Settings) {
    for endpoint in endpoints(settings) {
        routes.service(endpoint.resource());
    }
}

async fn create<I>(
    request: HttpRequest,
    body: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, ApiError>
where
    I: Input<Row: Resource>,
{
    // A wrong key is an error even where it means nothing, which is to an upload.
    let key = idempotency_key(&request)?;
    match media_type(&request).as_deref() {
        Some(JSON) => {
            let body = read(&service, body).await?;
            let context = Context { key, ..service.context() };
            let row = parse::<I>(&body)?.into_row(context)?;
            match insert_one(&service, row).await? {
                (true, row) => {
                    Ok(HttpResponse::Created().insert_header((LOCATION, location(&row))).json(row))
                }
                (false, row) => Ok(HttpResponse::Ok().json(row)),
            }
        }
        Some(NDJSON) => {
            let body = Box::pin(in_good_time(&service, parts(&service, body)));
            Ok(HttpResponse::Ok().json(bulk::upload::<I>(&service, body).await?))
        }
        _ => Err(ApiError::ContentType("application/json, or application/x-ndjson for many rows")),
    }
}

/// Stores one row; returns whether it is new, and the row as it is stored.
async fn insert_one<R: Resource>(service: &Service, row: New<R>) -> Result<(bool, R), ApiError> {
    let outcomes = service.insert(service.settings.limits.query_timeout.get(), &[row]).await?;
    match outcomes.into_iter().next() {
        Some(Outcome::Created(row)) => Ok((true, row)),
        Some(Outcome::Repeated(row)) => Ok((false, row)),
        Some(Outcome::Rejected(rejection)) => Err(rejection.into()),
        // One outcome for each row.
        None => Err(ApiError::Unavailable(None)),
    }
}

async fn get<R: Resource>(id: Path<String>, service: Data<Service>) -> Result<HttpResponse, ApiError> {
    let id = path_id(&id)?;
    let row: R = service.ask(async |client| store::find(client, id).await).await?;
    Ok(HttpResponse::Ok().json(row))
}

async fn delete<R: Resource>(id: Path<String>, service: Data<Service>) -> Result<HttpResponse, ApiError> {
    let id = path_id(&id)?;
    service.ask(async |client| store::delete::<R>(client, id).await).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn list<R: Resource>(request: HttpRequest, service: Data<Service>) -> Result<HttpResponse, ApiError> {
    let page = Page::of(request.query_string(), &service.settings.limits)?;
    let rows = service.ask(async |client| store::list::<R>(client, page.after, page.limit + 1).await).await?;
    Ok(page.answer(rows))
}

async fn owned(
    request: HttpRequest,
    id: Path<String>,
    service: Data<Service>,
) -> Result<HttpResponse, ApiError> {
    let (id, page) = (path_id(&id)?, Page::of(request.query_string(), &service.settings.limits)?);
    let items = async |client: &_| store::items_of(client, id, page.after, page.limit + 1).await;
    Ok(page.answer(service.ask(items).await?))
}

async fn history(
    request: HttpRequest,
    id: Path<String>,
    service: Data<Service>,
) -> Result<HttpResponse, ApiError> {
    let (id, page) = (path_id(&id)?, Page::of(request.query_string(), &service.settings.limits)?);
    let transfers = async |client: &_| store::transfers_of(client, id, page.after, page.limit + 1).await;
    Ok(page.answer(service.ask(transfers).await?))
}

async fn owner(id: Path<String>, service: Data<Service>) -> Result<HttpResponse, ApiError> {
    let id = path_id(&id)?;
    let owner = service.ask(async |client| store::owner_of(client, id).await).await?;
    Ok(HttpResponse::Ok().json(owner))
}

/// Every PUT is a transfer, also to the user who owns the item already.
async fn give(
    request: HttpRequest,
    id: Path<String>,
    body: Payload,
    service: Data<Service>,
) -> Result<HttpResponse, ApiError> {
    let item = path_id(&id)?;
    if media_type(&request).as_deref() != Some(JSON) {
        return Err(ApiError::ContentType(JSON));
    }
    let body = read(&service, body).await?;
    let NewOwner { to } = parse(&body)?;
    let context = Context { key: idempotency_key(&request)?, ..service.context() };
    let transfer = NewTransfer::to(item.into(), to).into_row(context)?;
    match insert_one(&service, transfer).await {
        Ok(_) => Ok(HttpResponse::NoContent().finish()),
        // The caller knows these two by other names.
        Err(ApiError::Rejected(Rejection::UnknownReference { field: "item_id" })) => {
            Err(ApiError::NotFound(Item::NAME))
        }
        Err(ApiError::Rejected(Rejection::UnknownReference { .. })) => {
            Err(Rejection::UnknownReference { field: "to" }.into())
        }
        Err(error) => Err(error),
    }
}

fn location<R: Resource>(row: &R) -> String {
    format!("{}/{}", R::PATH, row.id())
}

fn path_id(id: &Path<String>) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| ApiError::PathId(id.to_string()))
}

/// The media type without its parameters, in lower case.
fn media_type(request: &HttpRequest) -> Option<String> {
    let header = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(header.split(';').next()?.trim().to_ascii_lowercase())
}

fn idempotency_key(request: &HttpRequest) -> Result<Option<Uuid>, ApiError> {
    let Some(header) = request.headers().get("idempotency-key") else { return Ok(None) };
    // The draft standard writes it as a quoted string; bare UUIDs are as common.
    let key = header.to_str().ok().and_then(|text| text.trim_matches('"').parse().ok());
    key.map(Some).ok_or(ApiError::Header { name: "Idempotency-Key", detail: "must be a UUID" })
}

/// The parts of a body as they come, and an error where none comes for too long.
fn parts(service: &Service, body: Payload) -> impl Stream<Item = Result<Bytes, ApiError>> {
    let patience = service.settings.limits.body_idle_timeout.get();
    futures_util::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match timeout(patience, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(part))) => Some((Ok(part), Some(body))),
            Ok(Some(Err(error))) => Some((Err(ApiError::Body(error.to_string())), None)),
            Err(_) => {
                let detail = format!("nothing came for {} ms", patience.as_millis());
                Some((Err(ApiError::Body(detail)), None))
            }
        }
    })
}

/// The parts of an upload, and an error where they come too slowly. Only the time that is spent waiting for the client counts.
/// It is looked at anew each time that it is longer than a client may send nothing: what was sent before must not buy a place
/// for later.
fn in_good_time(
    service: &Service,
    parts: impl Stream<Item = Result<Bytes, ApiError>>,
) -> impl Stream<Item = Result<Bytes, ApiError>> {
    let least = service.settings.bulk.least_bytes_per_second;
    let grace = service.settings.limits.body_idle_timeout.get();
    let begun = (Box::pin(parts), std::time::Duration::ZERO, 0_u64);
    futures_util::stream::try_unfold(begun, move |(mut parts, mut waited, mut bytes)| async move {
        let since = Instant::now();
        let Some(part) = parts.next().await else { return Ok(None) };
        let part = part?;
        waited += since.elapsed();
        bytes = bytes.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        if waited > grace {
            if bytes < u64::from(least).saturating_mul(waited.as_secs()) {
                return Err(ApiError::Body(format!("it comes more slowly than {least} bytes/s")));
            }
            (waited, bytes) = (std::time::Duration::ZERO, 0);
        }
        Ok(Some((part, (parts, waited, bytes))))
    })
}

/// A whole body, which may not be longer than that of one row.
async fn read(service: &Service, body: Payload) -> Result<Vec<u8>, ApiError> {
    let (limit, patience) =
        (service.settings.limits.request_body_bytes, service.settings.limits.request_body_timeout.get());
    let read = async {
        let mut parts = Box::pin(parts(service, body));
        let mut whole = Vec::new();
        while let Some(part) = parts.next().await {
            whole.extend_from_slice(&part?);
            if whole.len() > limit {
                return Err(ApiError::TooLarge(limit));
            }
        }
        Ok(whole)
    };
    let late = || ApiError::Body(format!("it has not come within {} ms", patience.as_millis()));
    timeout(patience, read).await.map_err(|_| late())?
}
