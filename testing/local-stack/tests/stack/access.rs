//! Who gets in: every path, method, credential and way to present it, against a model that shares
//! no code with the services.

use std::collections::BTreeMap;
use std::sync::Arc;

use access_kit::key::Key;
use local_stack::stack::{Instance, Replicas, ServiceKind, Stack};
use local_stack::test_database::{TEST_KEY, TestDatabase, http_client};
use parking_lot::Mutex;
use rand::RngExt;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::keys::{client, keys, new_key, until_admitted};
use crate::support::{DEADLINE, settings, start_with};

const PAGE: &str = "http://127.0.0.1:4711";
const COOKIE: &str = "newcycle-4711";
pub(crate) const STREAM: &str = "/statistics/transfers/day";

/// A key, or something that is taken for one, and its scopes if it is valid.
struct Credential {
    text: String,
    scopes: Option<Vec<&'static str>>,
}

/// The ways to present a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Bearer,
    Basic,
    Twice,
    Query,
    Cookie,
    CookieOfPage,
    CookieOfForeignPage,
    CookieAcrossSites,
}

const WAYS: [Way; 8] = [
    Way::Bearer,
    Way::Basic,
    Way::Twice,
    Way::Query,
    Way::Cookie,
    Way::CookieOfPage,
    Way::CookieOfForeignPage,
    Way::CookieAcrossSites,
];

/// The model: what a request without a mistake in itself is answered, or `None` if it is let in.
/// If there is no such method, a valid key is enough to be answered so.
fn expected(
    (exists, method, path): (bool, &Method, &str),
    presented: Option<(&Credential, Way)>,
) -> Option<u16> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let needed = match path.split(['/', '?']).nth(1).unwrap_or_default() {
        _ if !exists => "",
        "statistics" if reads => "statistics:read",
        "base-items" | "users" | "items" | "transfers" => match method.as_str() {
            "GET" | "HEAD" => "ingest:read",
            "POST" | "PUT" => "ingest:write",
            "DELETE" => "ingest:delete",
            _ => "",
        },
        _ => "",
    };
    let Some((credential, way)) = presented else { return Some(401) };
    match way {
        Way::Twice | Way::Query => return Some(400),
        Way::Basic => return Some(401),
        Way::CookieOfForeignPage | Way::CookieAcrossSites => return Some(403),
        Way::Cookie if !reads => return Some(403),
        Way::Bearer | Way::Cookie | Way::CookieOfPage => {}
    }
    let Some(scopes) = &credential.scopes else { return Some(401) };
    (!needed.is_empty() && !scopes.contains(&needed)).then_some(403)
}

fn request(
    client: &Client,
    url: &str,
    method: &Method,
    presented: Option<(&Credential, Way)>,
) -> reqwest::RequestBuilder {
    let request =
        |url: &str| client.request(method.clone(), url).header("accept", "application/json");
    let Some((Credential { text, .. }, way)) = presented else { return request(url) };
    let cookie = || request(url).header("cookie", format!("{COOKIE}={text}"));
    match way {
        Way::Bearer => request(url).bearer_auth(text),
        Way::Basic => request(url).basic_auth(text, Some("")),
        Way::Twice => request(url).bearer_auth(text).header("authorization", "Bearer x"),
        Way::Query => request(&format!("{url}?access_token={text}")),
        Way::Cookie => cookie(),
        Way::CookieOfPage => cookie().header("origin", PAGE),
        Way::CookieOfForeignPage => cookie().header("origin", "http://127.0.0.1:4712"),
        Way::CookieAcrossSites => {
            cookie().header("origin", PAGE).header("sec-fetch-site", "cross-site")
        }
    }
}

/// The methods of all described paths.
async fn described(stack: &Stack, service: ServiceKind) -> BTreeMap<String, Vec<Method>> {
    let url = format!("{}/openapi.json", stack.url(service));
    let answer = client().get(url).bearer_auth(TEST_KEY).send().await.unwrap();
    let description: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let paths = description["paths"].as_object().unwrap().iter();
    paths
        .map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys();
            let methods = methods.map(|method| method.to_uppercase().parse().unwrap());
            (path.clone(), methods.collect())
        })
        .collect()
}

/// One of each service that pages of [`PAGE`] may use.
pub(crate) async fn start(database: &TestDatabase) -> Stack {
    let mut settings = settings(database.superuser(), Replicas::ONE);
    let origins = "NEWCYCLE__CORS__ALLOWED_ORIGINS";
    let refusals = "NEWCYCLE__ACCESS__REFUSALS_PER_MINUTE";
    for service in [ServiceKind::IngestApi, ServiceKind::SseGateway] {
        settings.set(&[(service, origins, PAGE), (service, refusals, "1000000")]);
    }
    start_with(settings).await
}

pub(crate) async fn rows(database: &TestDatabase) -> Vec<i64> {
    let count = "SELECT (SELECT count(*) FROM base_items), (SELECT count(*) FROM users),
                        (SELECT count(*) FROM items), (SELECT count(*) FROM transfers)";
    let row = database.connect().await.query_one(count, &[]).await.unwrap();
    (0..4).map(|column| row.get(column)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_gets_in_without_a_grant() {
    let database = TestDatabase::create().await;
    let store = keys(&database).await;
    let all = ["ingest:write", "ingest:delete", "ingest:read", "statistics:read"];
    let mut credentials = Vec::new();
    for scopes in all.iter().map(std::slice::from_ref).chain([&all[..]]) {
        let key = new_key(&store, &format!("key-{}", credentials.len()), scopes).await;
        credentials
            .push(Credential { text: key.expose().to_owned(), scopes: Some(scopes.to_vec()) });
    }
    let revoked = new_key(&store, "revoked", &all).await;
    store.revoke("revoked").await.unwrap();
    let expired = new_key(&store, "expired", &all).await;
    let expire = "UPDATE access_key SET expires_at = now() WHERE name = 'expired'";
    database.connect().await.batch_execute(expire).await.unwrap();
    let mut mistyped = credentials[4].text.clone();
    mistyped.replace_range(20..21, if &mistyped[20..21] == "a" { "b" } else { "a" });
    let bad = [
        revoked.expose().to_owned(),
        expired.expose().to_owned(),
        Key::generate().expose().to_owned(),
        mistyped,
        "x".to_owned(),
    ];
    credentials.extend(bad.map(|text| Credential { text, scopes: None }));

    let stack = start(&database).await;
    let client = client();
    let ingest = stack.url(ServiceKind::IngestApi);
    let admin = http_client().build().unwrap();
    let create = async |path: &str, body: Value| -> String {
        let request =
            admin.post(format!("{ingest}{path}")).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let row: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        row["id"].as_str().unwrap().to_owned()
    };
    let base_item = create("/base-items", json!({ "description": "a thing" })).await;
    let item = create("/items", json!({ "base_item_id": base_item })).await;
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"];
    let methods = methods.map(|method| method.parse::<Method>().unwrap());
    let before = rows(&database).await;
    let mut admitted = Vec::new();
    for service in [ServiceKind::IngestApi, ServiceKind::SseGateway] {
        let described = described(&stack, service).await;
        let known = described
            .into_iter()
            .map(|(path, methods)| (path.replace("{id}", &item).replace("{unit}", "day"), methods));
        let others =
            ["/docs", "/docs/", "/openapi.json", "/none", "/items/x/y", "/internal/v1/access"];
        let others = others.map(|path| (path.to_owned(), Vec::new()));
        for (path, existing) in known.chain(others) {
            let url = format!("{}{path}", stack.url(service));
            for method in &methods {
                let exists = existing.contains(method)
                    || (*method == Method::HEAD && existing.contains(&Method::GET));
                let ways = credentials.iter().flat_map(|one| WAYS.map(|way| Some((one, way))));
                for presented in std::iter::once(None).chain(ways) {
                    let Some(status) = expected((exists, method, &path), presented) else {
                        admitted.push((url.clone(), method.clone(), presented));
                        continue;
                    };
                    let what = || {
                        let how =
                            presented.map(|(one, way)| (&one.text[..one.text.len().min(15)], way));
                        format!("{method} {url} {how:?}")
                    };
                    let body = json!({ "description": "x", "base_item_id": base_item }).to_string();
                    let request = request(&client, &url, method, presented);
                    let request = request.header("content-type", "application/json").body(body);
                    let answer = request.send().await.unwrap();
                    assert_eq!(answer.status().as_u16(), status, "{}", what());
                    let headers = answer.headers();
                    assert_eq!(headers["content-type"], "application/problem+json", "{}", what());
                    assert_eq!(headers["cache-control"], "no-store", "{}", what());
                    assert_limits_browsers(&answer, &what());
                    let challenge = headers.get("www-authenticate");
                    let challenge = challenge.map(|challenge| challenge.to_str().unwrap());
                    let is_right = match (status, presented) {
                        (403, Some((_, Way::Bearer | Way::CookieOfPage))) => {
                            challenge.is_some_and(|text| text.contains("insufficient_scope"))
                        }
                        // A page of another site, which no other key helps; or a missing scope.
                        (403, _) => {
                            challenge.is_none_or(|text| text.contains("insufficient_scope"))
                        }
                        _ => challenge.is_some_and(|text| text.starts_with("Bearer realm=")),
                    };
                    assert!(is_right, "{}: {challenge:?}", what());
                }
            }
        }
    }
    assert_eq!(rows(&database).await, before);
    for (url, method, presented) in admitted {
        // Their effects are not looked at, so they need no body.
        let answer = request(&client, &url, &method, presented).send().await.unwrap();
        let status = answer.status();
        assert_limits_browsers(&answer, &format!("{method} {url}"));
        assert!(
            status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN,
            "{method} {url}: {status}"
        );
        if status.is_success() {
            let headers = answer.headers();
            let vary: Vec<_> =
                headers.get_all("vary").iter().map(|vary| vary.to_str().unwrap()).collect();
            assert!(vary.join(",").contains("authorization, cookie"), "{method} {url}: {vary:?}");
            let cache = headers["cache-control"].to_str().unwrap();
            assert!(cache.contains("no-store"), "{method} {url}: {cache}");
        }
    }
}

/// Checks the headers of every answer.
pub(crate) fn assert_limits_browsers(answer: &reqwest::Response, what: &str) {
    let headers = answer.headers();
    let policy = headers["content-security-policy"].to_str().unwrap();
    let is_limited =
        policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'");
    assert!(is_limited, "{what}: {policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff", "{what}");
    assert_eq!(headers["x-frame-options"], "DENY", "{what}");
    assert_eq!(headers["referrer-policy"], "no-referrer", "{what}");
    assert_eq!(headers["cross-origin-resource-policy"], "same-origin", "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mangled_path_opens_nothing() {
    let database = TestDatabase::create().await;
    let stack = start(&database).await;
    let store = keys(&database).await;
    let other = new_key(&store, "of-the-other-service", &["statistics:read:transfers/year"]).await;
    until_admitted(&stack, ServiceKind::IngestApi, &other).await;
    let client = client();
    let url = stack.url(ServiceKind::IngestApi);
    let address = url.trim_start_matches("http://");
    let mut paths: Vec<String> = [
        "//users",
        "/users/",
        "/USERS",
        "/%75sers",
        "/users%2f",
        "/./users",
        "/x/../users",
        "/users;x",
        "/users?x",
        "/users#",
        "/users%00",
        "/users%20",
        "/docs/../users",
        "*",
        "users",
    ]
    .map(str::to_owned)
    .into();
    let mut random = rand::rng();
    for _ in 0..500 {
        let parts =
            ["/", "users", "items", ".", "..", "%2f", "%2e", "//", "docs", "?", "#", "%", "é"];
        let part = |_| parts[random.random_range(0..parts.len())];
        paths.push(format!("/{}", (0..6).map(part).collect::<String>()));
    }
    for path in paths {
        for key in [None, Some(other.expose())] {
            // Written by hand, because clients repair addresses.
            let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{key}\r\n");
            let answer = raw(address, &request).await;
            let status: u16 = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
            let is_page = path.starts_with("/docs") || path == "/openapi.json";
            assert!(
                (400..500).contains(&status) || status == 0 || (is_page && !key.is_empty()),
                "{path:?}: {answer}"
            );
            assert!(key.is_empty() || status != 401, "{path:?}: {answer}");
        }
    }
    // The key itself works.
    let answer =
        client.get(format!("{url}/access")).bearer_auth(other.expose()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// Sends bytes, and reads until the end.
async fn raw(address: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses the bytes may reset the connection.
    let _reset = connection.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_keys_says_so() {
    let database = TestDatabase::create().await;
    let wanted = Replicas { ingest_api: 1, stats_notifier: 1, sse_gateway: 1, ..Replicas::NONE };
    let mut settings = settings(database.superuser(), wanted);
    let services = [ServiceKind::IngestApi, ServiceKind::SseGateway];
    for service in services {
        settings.set(&[(service, "NEWCYCLE__ACCESS__MODE", "open")]);
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let keep = Arc::new(move |instance: Instance, line: &str| {
        lines.lock().push((instance.service, line.to_owned()));
    });
    let mut stack = Stack::start(settings, keep).unwrap();
    for service in services {
        stack.until_ready(service, DEADLINE).await.unwrap();
        let warning = "access.mode is \"open\"";
        let logged = |(of, line): &(ServiceKind, String)| *of == service && line.contains(warning);
        assert!(log.lock().iter().any(logged), "{service} must log it");
        let ready = client().get(format!("{}/readyz", stack.internal_url(service)));
        let ready: Value =
            serde_json::from_str(&ready.send().await.unwrap().text().await.unwrap()).unwrap();
        assert!(ready["warning"].as_str().unwrap().starts_with(warning), "{ready}");
        // A key that is wrong is no reason either.
        for key in [None, Some("wrong")] {
            let request = client().get(format!("{}/access", stack.url(service)));
            let request = key.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let access: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            assert_eq!(access["kind"], "everyone");
        }
    }
}
