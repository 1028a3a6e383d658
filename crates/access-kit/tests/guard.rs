//! The guard against a model that shares no code with it: each route, method, credential, way to
//! present it and state of the service. Guards with planted mistakes show that the model finds
//! mistakes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroU32;
use std::sync::Arc;

use access_kit::control::AccessControl;
use access_kit::credential::Pages;
use access_kit::guard::{AccessGuard, Need, Needs};
use access_kit::key::Key;
use access_kit::keyring::KeyRecord;
use access_kit::scope::Permission;
use access_kit::settings::{AccessMode, AccessSettings};
use actix_web::dev::{Service, ServiceRequest};
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpRequest, HttpResponse, web};
use futures_util::future::{Either, ready};
use service_kit::guard::Guard;
use service_kit::metrics::Metrics;
use service_kit::settings::sections::CorsSettings;
use time::OffsetDateTime;
use tokio::time::Instant;

const PAGE: &str = "http://127.0.0.1:4711";
const COOKIE: &str = "newcycle-4711";

/// Each path, and what its methods need: a scope, "" for any key, or "-" for nothing.
const ROUTES: [(&str, &[(&str, &str)]); 4] = [
    ("/items", &[("GET", "ingest:read"), ("POST", "ingest:write"), ("DELETE", "ingest:delete")]),
    ("/statistics", &[("GET", "statistics:read")]),
    ("/access", &[("GET", "")]),
    ("/page", &[("GET", "-"), ("POST", "-")]),
];

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"];

/// How a credential is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Bearer,
    Twice,
    Query,
    Cookie,
    CookieOfPage,
    CookieOfOtherPage,
    CookieAcrossSites,
}

const WAYS: [Way; 7] = [
    Way::Bearer,
    Way::Twice,
    Way::Query,
    Way::Cookie,
    Way::CookieOfPage,
    Way::CookieOfOtherPage,
    Way::CookieAcrossSites,
];

/// A service.
#[derive(Debug, Clone, Copy)]
struct State {
    has_keyring: bool,
    /// Whether statistics can be read without a key.
    is_public: bool,
}

/// The model: what a request is answered, or `None` if it reaches the route.
fn expected(
    state: State,
    (method, path): (&str, &str),
    presented: Option<(Option<&str>, Way)>,
) -> Option<u16> {
    let reads = matches!(method, "GET" | "HEAD");
    let methods = ROUTES.iter().find(|(known, _)| *known == path).map_or(&[][..], |(_, all)| *all);
    let route = if method == "HEAD" { "GET" } else { method };
    let need = methods.iter().find(|(known, _)| *known == route).map_or("", |(_, need)| *need);
    if path == "/page" {
        return None;
    }
    let Some((scope, way)) = presented else {
        return (!state.is_public || need != "statistics:read").then_some(401);
    };
    match way {
        Way::Twice | Way::Query => return Some(400),
        Way::CookieOfOtherPage | Way::CookieAcrossSites => return Some(403),
        Way::Cookie if !reads => return Some(403),
        _ if !state.has_keyring => return Some(503),
        Way::Bearer | Way::Cookie | Way::CookieOfPage => {}
    }
    let Some(scope) = scope else { return Some(401) };
    (!need.is_empty() && scope != need).then_some(403)
}

/// The keys, each with its scope; one that is unknown, one that has ended, and something else.
struct Credentials {
    all: Vec<(String, Option<&'static str>)>,
    records: Vec<KeyRecord>,
}

impl Credentials {
    fn make() -> Self {
        let scopes = ["ingest:read", "ingest:write", "ingest:delete", "statistics:read"];
        let mut made = Self { all: Vec::new(), records: Vec::new() };
        for (number, scope) in (1..).zip(scopes) {
            made.add(number, scope, None);
            made.all.last_mut().unwrap().1 = Some(scope);
        }
        made.add(9, "statistics:read", Some(OffsetDateTime::UNIX_EPOCH));
        made.all.push((Key::generate().expose().to_owned(), None));
        made.all.push(("x".to_owned(), None));
        made
    }

    fn add(&mut self, number: i32, scope: &str, ended_at: Option<OffsetDateTime>) {
        let key = Key::generate();
        self.all.push((key.expose().to_owned(), None));
        self.records.push(KeyRecord {
            number,
            id: key.id(),
            name: format!("key-{number}"),
            hash: key.hash(),
            scopes: vec![scope.to_owned()],
            expires_at: None,
            ended_at,
            requests_per_second: None,
            streams: None,
        });
    }
}

fn guard(state: State, credentials: &Credentials) -> Arc<dyn Guard> {
    let anonymous = if state.is_public { vec!["statistics:read".parse().unwrap()] } else { vec![] };
    let settings = AccessSettings {
        mode: AccessMode::Keys,
        anonymous_scopes: anonymous,
        offline_seconds: 3_600,
        refusals_per_minute: NonZeroU32::MAX,
    };
    let cors = CorsSettings { allowed_origins: vec![PAGE.to_owned()] };
    let access = Arc::new(AccessControl::new(&settings, Pages::of_cors(&cors)));
    if state.has_keyring {
        access.replace(1, credentials.records.clone(), Instant::now());
    }
    let mut needs = Needs::default();
    for (path, methods) in ROUTES {
        for (method, need) in methods {
            let need = match *need {
                "-" => Need::Nothing,
                "" => Need::AnyKey,
                scope => Need::Permission(
                    Permission::ALL.into_iter().find(|known| known.name() == scope).unwrap(),
                ),
            };
            needs.add(path, method.parse().unwrap(), need);
        }
    }
    Arc::new(AccessGuard::new(access, needs, &Metrics::new().unwrap()))
}

/// Sends every request to a guard, and returns the first answer that is not the expected one.
async fn first_mistake(
    state: State,
    credentials: &Credentials,
    guard: Arc<dyn Guard>,
) -> Option<String> {
    let app = App::new().wrap_fn(move |request, routes| match guard.refuse(&request) {
        Some(refused) => Either::Left(ready(Ok(request.into_response(refused)))),
        None => Either::Right(routes.call(request)),
    });
    let admitted = || async { HttpResponse::NoContent().finish() };
    let app = ROUTES.iter().fold(app, |app, (path, _)| app.route(path, web::to(admitted)));
    let app = init_service(app.default_service(web::to(admitted))).await;
    let ways = credentials.all.iter().flat_map(|one| WAYS.map(|way| Some((one, way))));
    let presented: Vec<_> = std::iter::once(None).chain(ways).collect();
    for (path, _) in ROUTES.into_iter().chain([("/none", &[][..])]) {
        for method in METHODS {
            for presented in &presented {
                let scope = presented.map(|((_, scope), way)| (*scope, way));
                let expected = expected(state, (method, path), scope).unwrap_or(204);
                let request =
                    request(method, path, presented.map(|((text, _), way)| (&**text, way)));
                let answer = app.call(request.to_request()).await.unwrap().status();
                if answer != StatusCode::from_u16(expected).unwrap() {
                    let how = format!("{state:?}, {method} {path}, {scope:?}");
                    return Some(format!("{how}: {answer} and not {expected}"));
                }
            }
        }
    }
    None
}

fn request(method: &str, path: &str, presented: Option<(&str, Way)>) -> TestRequest {
    let to = |path: &str| TestRequest::with_uri(path).method(method.parse().unwrap());
    let Some((text, way)) = presented else { return to(path) };
    let bearer = || to(path).insert_header(("authorization", format!("Bearer {text}")));
    let cookie = || to(path).insert_header(("cookie", format!("{COOKIE}={text}")));
    match way {
        Way::Bearer => bearer(),
        Way::Twice => bearer().append_header(("authorization", "Bearer x")),
        Way::Query => to(&format!("{path}?access_token={text}")),
        Way::Cookie => cookie(),
        Way::CookieOfPage => cookie().insert_header(("origin", PAGE)),
        Way::CookieOfOtherPage => cookie().insert_header(("origin", "http://127.0.0.1:4712")),
        Way::CookieAcrossSites => {
            let request = cookie().insert_header(("origin", PAGE));
            request.insert_header(("sec-fetch-site", "cross-site"))
        }
    }
}

const STATES: [State; 4] = [
    State { has_keyring: true, is_public: false },
    State { has_keyring: true, is_public: true },
    State { has_keyring: false, is_public: false },
    State { has_keyring: false, is_public: true },
];

#[actix_web::test]
async fn the_guard_answers_as_the_model_says() {
    let credentials = Credentials::make();
    for state in STATES {
        let guard = guard(state, &credentials);
        assert_eq!(first_mistake(state, &credentials, guard).await, None);
    }
}

/// Whether a guard with a mistake admits what it should answer with this status.
type Mistake = fn(&ServiceRequest, StatusCode) -> bool;

/// A guard with a mistake that people make.
struct Planted {
    guard: Arc<dyn Guard>,
    admits: Mistake,
}

impl Guard for Planted {
    fn refuse(&self, request: &ServiceRequest) -> Option<HttpResponse> {
        let refused = self.guard.refuse(request)?;
        (!(self.admits)(request, refused.status())).then_some(refused)
    }

    fn finish(&self, request: &HttpRequest, headers: &mut HeaderMap) {
        self.guard.finish(request, headers);
    }
}

#[actix_web::test]
async fn the_model_finds_planted_mistakes() {
    let credentials = Credentials::make();
    let mistakes: [(&str, Mistake); 4] = [
        ("HEAD is forgotten", |request, _| request.method() == Method::HEAD),
        ("a cookie without an origin writes", |request, status| {
            let headers = request.headers();
            status == 403 && headers.contains_key("cookie") && !headers.contains_key("origin")
        }),
        ("no keyring admits everyone", |_, status| status == 503),
        ("a bad key counts as none", |request, status| {
            status == 401
                && request.path() == "/statistics"
                && request.headers().contains_key("authorization")
        }),
    ];
    for (mistake, admits) in mistakes {
        let mut found = None;
        for state in STATES {
            let guard = Arc::new(Planted { guard: guard(state, &credentials), admits });
            found = found.or(first_mistake(state, &credentials, guard).await);
        }
        assert!(found.is_some(), "{mistake}: not found");
    }
}
