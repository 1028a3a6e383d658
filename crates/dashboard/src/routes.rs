//! Serves the page, its files, the addresses of the other services, and the session.

use access_kit::guard::{Need, Needs};
use actix_web::http::Method;
use actix_web::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETag,
    EntityTag, HeaderName, IfNoneMatch, VARY,
};
use actix_web::web::{self, Data, Header};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;
use service_kit::encoding::accepts_gzip;
use service_kit::host::RequestedHost;
use service_kit::problem::{Problem, method_not_allowed, not_found};
use service_kit::unsent::ExistingBytes;

use crate::assets::{Assets, PAGE};
use crate::session;
use crate::settings::ServicesSettings;

const CONFIG_PATH: &str = "/config.json";
const FILES_PATTERN: &str = "/{path:.*}";

/// What the routes need: the page and its files have no data. The session needs nothing either,
/// because it is how a browser gets a credential: its handlers check the key and the page.
pub fn needs() -> Needs {
    let mut needs = Needs::default();
    needs.add(session::PATH, Method::POST, Need::Nothing);
    needs.add(session::PATH, Method::DELETE, Need::Nothing);
    needs.add(CONFIG_PATH, Method::GET, Need::Nothing);
    needs.add(FILES_PATTERN, Method::GET, Need::Nothing);
    needs
}

/// Adds the routes. The application's data must contain [`ServicesSettings`], [`Assets`] and
/// [`AccessControl`](access_kit::control::AccessControl).
pub fn configure(routes: &mut web::ServiceConfig) {
    let resource = |path: &str, route| {
        web::resource(path.to_owned())
            .route(route)
            .default_service(method_not_allowed(&[Method::GET]))
    };
    routes
        .configure(session::configure)
        .service(resource(CONFIG_PATH, web::get().to(config)))
        .service(resource(FILES_PATTERN, web::get().to(file)));
}

/// The URLs at which a browser reaches the services.
struct Addresses {
    gateway: String,
    ingest: String,
}

impl Addresses {
    /// By default, the services have the host that the page was requested from. It comes from the
    /// client and goes into a policy, so it must be the one that [`service_kit::host`] has checked.
    fn from_request(request: &HttpRequest, settings: &ServicesSettings) -> Self {
        let host = RequestedHost::of(request);
        let host = host.map_or_else(|| "localhost".to_owned(), |host| host.to_string());
        let address = |url: &str, port| match url {
            "" => format!("http://{host}:{port}"),
            url => url.trim_end_matches('/').to_owned(),
        };
        Self {
            gateway: address(&settings.gateway_url, settings.gateway_port),
            ingest: address(&settings.ingest_url, settings.ingest_port),
        }
    }
}

async fn config(request: HttpRequest, settings: Data<ServicesSettings>) -> HttpResponse {
    let Addresses { gateway, ingest } = Addresses::from_request(&request, &settings);
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "gateway": gateway, "ingest": ingest }))
}

async fn file(
    request: HttpRequest,
    path: web::Path<String>,
    cached: Option<Header<IfNoneMatch>>,
    settings: Data<ServicesSettings>,
    assets: Data<Assets>,
) -> HttpResponse {
    let path = if path.is_empty() { PAGE } else { path.as_str() };
    let Some(asset) = assets.find(path) else {
        if path == PAGE {
            return not_built();
        }
        return not_found(request).await;
    };
    let gzip = asset.gzip.as_ref().filter(|_| accepts_gzip(&request));
    let content = gzip.unwrap_or(&asset.plain);
    let tag = EntityTag::new_strong(content.tag.clone());
    let unchanged = cached.is_some_and(|Header(cached)| match cached {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(tags) => tags.iter().any(|cached| cached.weak_eq(&tag)),
    });
    let mut answer = if unchanged { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    let cache_control =
        if asset.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    answer
        .insert_header((CACHE_CONTROL, cache_control))
        .insert_header(ETag(tag))
        .insert_header((VARY, ACCEPT_ENCODING.as_str()))
        .insert_header((CONTENT_TYPE, asset.media_type))
        .insert_header((HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
        .insert_header((
            CONTENT_SECURITY_POLICY,
            policy(&Addresses::from_request(&request, &settings)),
        ));
    if unchanged {
        return answer.finish();
    }
    if gzip.is_some() {
        answer.insert_header((CONTENT_ENCODING, "gzip"));
    }
    answer.extensions_mut().insert(ExistingBytes);
    answer.body(content.bytes.clone())
}

/// What the page may load: its own files, and everything of the services. A path that ends in a
/// slash includes everything below it (<https://www.w3.org/TR/CSP3/#path-part-match>).
fn policy(addresses: &Addresses) -> String {
    let Addresses { gateway, ingest } = addresses;
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self' {gateway}/ {ingest}/; worker-src 'self'; manifest-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
}

fn not_built() -> HttpResponse {
    Problem::unavailable(
        "The page was not built before this program: run `npm ci` and `npm run build` in crates/dashboard/web \
         (needs Node 20.19 or newer), then build this program again.",
    )
    .response()
}
