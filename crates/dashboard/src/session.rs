//! The session of a browser: a cookie whose value is the key itself.
//!
//! `POST /session` makes one of a key, and without a key renews the one that the browser has.
//! `DELETE /session` ends it. Nothing is stored or signed here: the services check the key of each
//! request by the list of keys, as they check any other key.
//!
//! Invariants:
//! - Only a page of this very origin gets or loses a session. Another website could else log its
//!   visitors in with a key of its own, or log them out.
//! - A cookie never travels over a network in plain text: over http there is a session only if the
//!   client and this service are on one machine.

use std::time::Duration;

use access_kit::control::AccessControl;
use access_kit::credential::{self, SEC_FETCH_SITE, SECURE_COOKIE, plain_cookie};
use access_kit::key::{KEY_CHARACTERS, Key};
use access_kit::refusal::Refusal;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN, SET_COOKIE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use mime::Mime;
use serde::Deserialize;
use service_kit::host::RequestedOrigin;
use service_kit::problem::{Problem, method_not_allowed};
use tokio::time::timeout;

/// The path.
pub(crate) const PATH: &str = "/session";

/// 400 days in seconds, the longest time that browsers keep a cookie
/// (<https://httpwg.org/http-extensions/draft-ietf-httpbis-rfc6265bis.html#section-5.5>). A key
/// that ends earlier is refused then.
const MAX_AGE: u32 = 400 * 86_400;

/// The body is a key with `{"key":""}` around it. The rest is for spaces.
const MAX_BODY_BYTES: usize = KEY_CHARACTERS + 128;

const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of `POST /session`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    key: String,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The key of the cookie was refused, so the cookie is of no use any more.
    #[error("{0}")]
    CookieRefused(Refusal, HeaderValue),
    #[error(
        "The request is for {requested}, but a page of {origin} sends it. If both are the same for \
         you, a proxy changes the address: it must send X-Forwarded-Host with the port and \
         X-Forwarded-Proto, and its own address must be in the setting http.trusted_proxies."
    )]
    Foreign { requested: String, origin: String },
    #[error("Only a page of {0} can have a session, and browsers say which page sends a request.")]
    NoPage(String),
    #[error(
        "There is no login over http, because a key would be readable on its way. Use https, by a \
         proxy in front of this service, or a browser on the same machine: http://127.0.0.1:{port}."
    )]
    Insecure { port: u16 },
    #[error("The body must be {{\"key\": \"nc_…\"}} with the content type application/json.")]
    MediaType,
    #[error("The body is longer than {MAX_BODY_BYTES} bytes. A key has {KEY_CHARACTERS}.")]
    TooLong,
    #[error("The body did not arrive within {} s.", BODY_TIMEOUT.as_secs())]
    Late,
    #[error("The body must be {{\"key\": \"nc_…\"}} with a whole key.")]
    NoKey,
}

impl ResponseError for SessionError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) | Self::CookieRefused(refusal, _) => refusal.status_code(),
            Self::Foreign { .. } | Self::NoPage(_) | Self::Insecure { .. } => StatusCode::FORBIDDEN,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::NoKey => StatusCode::BAD_REQUEST,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let (kind, title) = match self {
            Self::Refused(refusal) => return refusal.error_response(),
            Self::CookieRefused(refusal, removal) => {
                let mut response = refusal.error_response();
                response.headers_mut().insert(SET_COOKIE, removal.clone());
                return response;
            }
            Self::Foreign { .. } | Self::NoPage(_) => {
                ("/problems/foreign-origin", "The page may not use this session")
            }
            Self::Insecure { .. } => ("/problems/insecure-login", "There is no login over http"),
            Self::MediaType => ("/problems/unsupported-media-type", "Unsupported media type"),
            Self::TooLong => ("/problems/too-long", "The body is too long"),
            Self::Late => ("/problems/request-timeout", "The body is late"),
            Self::NoKey => ("/problems/invalid-request", "The body has no key"),
        };
        let problem = Problem::new(self.status_code(), kind, title, self.to_string());
        let mut response = problem.response();
        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        response
    }
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Adds the routes. The application's data must contain [`AccessControl`].
pub(crate) fn configure(routes: &mut web::ServiceConfig) {
    routes.service(
        web::resource(PATH)
            .route(web::post().to(log_in))
            .route(web::delete().to(log_out))
            .default_service(method_not_allowed(&[Method::POST, Method::DELETE])),
    );
}

async fn log_in(
    request: HttpRequest,
    body: web::Payload,
    access: web::Data<AccessControl>,
) -> Result<HttpResponse, SessionError> {
    let origin = check_page(&request)?;
    let body = timeout(BODY_TIMEOUT, body.to_bytes_limited(MAX_BODY_BYTES));
    let body = body.await.map_err(|_| SessionError::Late)?.map_err(|_| SessionError::TooLong)?;
    let body = body.map_err(|_| SessionError::NoKey)?;
    let name = cookie_name(&origin);
    let key = if body.is_empty() {
        let session = credential::session(&request, &name)?.ok_or(Refusal::Missing)?;
        let key = session.parse().map_err(|_| Refusal::Unknown);
        let checked = key.and_then(|key| access.check_key(&key).map(|_| key));
        checked.map_err(|refusal| match access.limit(&request, refusal) {
            // The cookie may be right.
            refusal @ (Refusal::NoKeyring | Refusal::Flood { .. }) => refusal.into(),
            other => SessionError::CookieRefused(other, cookie(&origin, None)),
        })?
    } else {
        let key = key_of(&request, &body)?;
        access.check_key(&key).map_err(|refusal| access.limit(&request, refusal))?;
        key
    };
    Ok(answer(cookie(&origin, Some(&key))))
}

async fn log_out(request: HttpRequest) -> Result<HttpResponse, SessionError> {
    let origin = check_page(&request)?;
    Ok(answer(cookie(&origin, None)))
}

fn key_of(request: &HttpRequest, body: &[u8]) -> Result<Key, SessionError> {
    let header = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = header.and_then(|header| header.parse().ok());
    let is_json = |media_type: Mime| media_type.essence_str() == mime::APPLICATION_JSON.as_ref();
    if !media_type.is_some_and(is_json) {
        return Err(SessionError::MediaType);
    }
    let Login { key } = serde_json::from_slice(body).map_err(|_| SessionError::NoKey)?;
    key.parse().map_err(|_| SessionError::NoKey)
}

/// The origin of the page that sends a request, if it may have a session. Browsers send `Origin`
/// with each `POST` and `DELETE`.
fn check_page(request: &HttpRequest) -> Result<RequestedOrigin, SessionError> {
    credential::check_address(request)?;
    // Only HTTP/1.0 can do without a host, and no browser uses that.
    let requested = RequestedOrigin::of(request)
        .ok_or_else(|| SessionError::NoPage("this service".to_owned()))?;
    let own = requested.to_string();
    let mut origins = request.headers().get_all(ORIGIN).peekable();
    if origins.peek().is_none() {
        return Err(SessionError::NoPage(own));
    }
    let foreign = origins.find(|origin| origin.as_bytes() != own.as_bytes());
    let site = request.headers().get(SEC_FETCH_SITE);
    let other_site = site.filter(|site| site.as_bytes() != b"same-origin");
    if let Some(found) = foreign.or(other_site) {
        let origin = String::from_utf8_lossy(found.as_bytes()).into_owned();
        return Err(SessionError::Foreign { requested: own, origin });
    }
    if !requested.is_https && !requested.host.is_loopback() {
        return Err(SessionError::Insecure { port: requested.port });
    }
    Ok(requested)
}

/// The name that the services expect for the page of this origin.
fn cookie_name(origin: &RequestedOrigin) -> String {
    if origin.is_https { SECURE_COOKIE.to_owned() } else { plain_cookie(origin.port) }
}

/// The header that sets the cookie, or removes it.
fn cookie(origin: &RequestedOrigin, key: Option<&Key>) -> HeaderValue {
    let (value, age) = key.map_or(("", 0), |key| (key.expose(), MAX_AGE));
    let name = cookie_name(origin);
    let secure = if origin.is_https { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}");
    #[expect(clippy::expect_used, reason = "a key has only letters, digits and underscores")]
    let mut header = HeaderValue::from_str(&text).expect("a key is ASCII");
    header.set_sensitive(true);
    header
}

fn answer(cookie: HeaderValue) -> HttpResponse {
    let mut answer = HttpResponse::NoContent();
    answer.insert_header((CACHE_CONTROL, NO_STORE)).insert_header((SET_COOKIE, cookie)).finish()
}
