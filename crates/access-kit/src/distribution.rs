//! How the keyring travels: a service that has it serves it on its internal port, and a service
//! that has no database follows one that serves it. So it goes down a tree of gateways, as the
//! counts do.
//!
//! A request waits until the keyring changes (long polling), so a change arrives at once. The
//! answer says how long ago the keyring was known to be the newest, and each hop adds its own time:
//! a service knows how long it has been cut off from the database, however far away that is.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{AGE, CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use reqwest::StatusCode;
use service_kit::address::UpstreamAddress;
use service_kit::client::{self, InternalClient};
use service_kit::failure::one_line;
use service_kit::internal::InternalSecrets;
use service_kit::problem::{Problem, method_not_allowed};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control::AccessControl;
use crate::document::Keys;
use crate::keyring::{KeyRecord, MAX_KEYS};

/// The path of the keyring on internal ports.
const PATH: &str = "/internal/v1/access";

/// The path that takes the numbers of the keys that were used.
const USES_PATH: &str = "/internal/v1/access/uses";

/// How long a request waits for a change. A service that hears nothing for longer knows that it is
/// cut off.
const WAIT: Duration = Duration::from_secs(5);

/// How much longer than [`WAIT`] an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// An upstream whose keyring is older than this is cut off itself, and another one may not be. Its
/// answers are as old as one wait and one look of each hop before it.
const OUTDATED: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The delay before the next address is tried.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// How often the keys that were used are reported.
const USES_INTERVAL: Duration = Duration::from_secs(60);

/// A record has a name of 64 bytes, up to 100 scopes of about 40 bytes, and less than 300 bytes of
/// the rest. All together have far less.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Serves the keyring to the services that follow this one, until `shutdown`: then requests that
/// wait are answered at once.
pub fn configure(
    access: Arc<AccessControl>,
    shutdown: CancellationToken,
) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |routes: &mut web::ServiceConfig| {
        let (access, shutdown) = (Arc::clone(&access), shutdown.clone());
        let (of_uses, get) = (Arc::clone(&access), web::get());
        let get = get.to(move |request: HttpRequest| {
            let (access, shutdown) = (Arc::clone(&access), shutdown.clone());
            async move { keyring(&request, &access, &shutdown).await }
        });
        let post = web::post().to(move |numbers: web::Json<Vec<i32>>| {
            of_uses.mark_used(&numbers);
            std::future::ready(HttpResponse::NoContent())
        });
        let only = |method| method_not_allowed(&[method]);
        routes.service(web::resource(PATH).route(get).default_service(only(Method::GET))).service(
            web::resource(USES_PATH)
                // Eleven digits and a comma for each key.
                .app_data(web::JsonConfig::default().limit(2 * MAX_KEYS * 12))
                .route(post)
                .default_service(only(Method::POST)),
        );
    }
}

async fn keyring(
    request: &HttpRequest,
    access: &AccessControl,
    shutdown: &CancellationToken,
) -> HttpResponse {
    let known = request.headers().get(IF_NONE_MATCH).and_then(|tag| tag.to_str().ok());
    let document = tokio::select! {
        document = access.other_document(known) => Some(document),
        () = tokio::time::sleep(WAIT) => None,
        () = shutdown.cancelled() => None,
    };
    let Some(age) = access.age() else {
        return Problem::unavailable("this service has no list of keys yet").response();
    };
    // Rounded up, so that no hop takes the keyring for newer than it is.
    let age = (AGE, (age.as_secs() + 1).to_string());
    match document {
        Some(document) => HttpResponse::Ok()
            .content_type(mime::APPLICATION_JSON)
            .insert_header((CACHE_CONTROL, "no-store"))
            .insert_header((ETAG, document.tag))
            .insert_header(age)
            .body(document.json),
        None => HttpResponse::NotModified().insert_header(age).finish(),
    }
}

/// Why an upstream did not send the keyring.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the upstream answered {0}")]
    Refused(StatusCode),
    #[error("the upstream sent something that is no list of keys")]
    Unreadable(#[from] serde_json::Error),
    #[error("the list of keys has more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the upstream is cut off from the list of keys itself, since {0:?}")]
    Outdated(Duration),
}

impl From<reqwest::Error> for FollowError {
    /// The URL is left out: it is logged as the address, without its credentials.
    fn from(error: reqwest::Error) -> Self {
        Self::Unreachable(error.without_url())
    }
}

/// Keeps the keyring up to date from the first of these addresses that answers, until shutdown, and
/// reports which keys were used.
///
/// # Errors
/// The HTTP client cannot be built.
pub async fn follow(
    access: Arc<AccessControl>,
    addresses: Vec<UpstreamAddress>,
    secrets: InternalSecrets,
    shutdown: CancellationToken,
) -> Result<(), reqwest::Error> {
    let builder =
        client::internal().connect_timeout(CONNECT_TIMEOUT).timeout(WAIT + ANSWER_TIMEOUT);
    let client = InternalClient::new(builder, secrets)?;
    tokio::select! {
        never = follow_all(&access, &client, &addresses) => match never {},
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn follow_all(
    access: &AccessControl,
    client: &InternalClient,
    addresses: &[UpstreamAddress],
) -> Infallible {
    let mut is_cut_off = false;
    let mut known = None;
    let mut uses_reported = Instant::now();
    let mut current = 0;
    loop {
        let Some(address) = addresses.get(current) else { return std::future::pending().await };
        match poll(access, client, address, &mut known).await {
            Ok(()) => {
                if std::mem::take(&mut is_cut_off) {
                    tracing::info!(upstream.address = %address, "the list of keys is up to date again");
                }
                if uses_reported.elapsed() >= USES_INTERVAL {
                    uses_reported = Instant::now();
                    report_uses(access, client, address).await;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_cut_off, true) {
                    tracing::warn!(
                        upstream.address = %address,
                        error = %one_line(&error),
                        "no list of keys from the upstream; trying the next address"
                    );
                }
                current = (current + 1) % addresses.len();
                tokio::time::sleep(RETRY_DELAY.mul_f64(rand::random_range(0.5..1.0))).await;
            }
        }
    }
}

/// Asks once. `known` is the tag of the keyring that this service has.
async fn poll(
    access: &AccessControl,
    client: &InternalClient,
    address: &UpstreamAddress,
    known: &mut Option<String>,
) -> Result<(), FollowError> {
    let mut request = client.request(reqwest::Method::GET, address, PATH);
    if let Some(tag) = &*known {
        request = request.header(IF_NONE_MATCH.as_str(), tag);
    }
    let mut response = request.send().await?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let age = header(AGE.as_str()).and_then(|age| age.parse().ok()).map(Duration::from_secs);
    let (age, tag) = (age.unwrap_or_default(), header(ETAG.as_str()).map(str::to_owned));
    let now = Instant::now();
    let confirmed = now.checked_sub(age).unwrap_or(now);
    match response.status() {
        StatusCode::NOT_MODIFIED => access.confirm(confirmed),
        StatusCode::OK => {
            let mut body = Vec::new();
            while let Some(part) = response.chunk().await? {
                if body.len() + part.len() > MAX_BYTES {
                    return Err(FollowError::TooLong);
                }
                body.extend_from_slice(&part);
            }
            let Keys::<Vec<KeyRecord>> { version, keys } = serde_json::from_slice(&body)?;
            if !access.accepts(version) {
                return Err(FollowError::Outdated(age));
            }
            access.replace(version, keys, confirmed);
            *known = tag;
        }
        status => return Err(FollowError::Refused(status)),
    }
    if age > OUTDATED { Err(FollowError::Outdated(age)) } else { Ok(()) }
}

/// Reports which keys were used. It does not matter if that fails, because the next use is reported
/// again.
async fn report_uses(access: &AccessControl, client: &InternalClient, address: &UpstreamAddress) {
    let used = access.take_used();
    if used.is_empty() {
        return;
    }
    let body = serde_json::to_vec(&used).unwrap_or_default();
    let request = client
        .request(reqwest::Method::POST, address, USES_PATH)
        .header("content-type", mime::APPLICATION_JSON.as_ref())
        .body(body);
    if let Err(error) = request.send().await.and_then(reqwest::Response::error_for_status) {
        let error = error.without_url();
        tracing::debug!(error = %one_line(&error), "the uses of keys could not be reported");
        access.mark_used(&used);
    }
}
