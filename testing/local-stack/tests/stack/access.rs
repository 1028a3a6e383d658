//! Who gets in: every path, method, credential and way to present it, against a model that shares
//! no code with the services; and keys that end while they are used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use access::store::{KeyLimits, KeyStore};
use access_kit::key::Key;
use futures_util::StreamExt;
use local_stack::internal;
use local_stack::stack::{Instance, Replicas, ServiceKind, Stack};
use local_stack::test_database::{TEST_KEY, TestDatabase, http_client};
use parking_lot::Mutex;
use rand::RngExt;
use reqwest::{Client, Method, StatusCode};
use russe::reqwest_0_13::ReqwestExt;
use serde_json::{Value, json};

use crate::support::{DEADLINE, settings, start_with, until};

const PAGE: &str = "http://127.0.0.1:4711";
const COOKIE: &str = "newcycle-4711";
const STREAM: &str = "/statistics/transfers/day";

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

fn client() -> Client {
    Client::builder().timeout(DEADLINE).build().unwrap()
}

async fn keys(database: &TestDatabase) -> KeyStore {
    KeyStore::connect(&database.access(), "a test".to_owned()).await.unwrap()
}

/// Makes a valid key.
async fn new_key(store: &KeyStore, name: &str, scopes: &[&str]) -> Key {
    let key = Key::generate();
    let scopes: Vec<_> = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
    store
        .create(&key, name, &scopes, Some(Duration::from_secs(86_400)), KeyLimits::default())
        .await
        .unwrap();
    key
}

/// One of each service that pages of [`PAGE`] may use.
async fn start(database: &TestDatabase) -> Stack {
    let mut settings = settings(database.superuser(), Replicas::ONE);
    let origins = "NEWCYCLE__CORS__ALLOWED_ORIGINS";
    let refusals = "NEWCYCLE__ACCESS__REFUSALS_PER_MINUTE";
    for service in [ServiceKind::IngestApi, ServiceKind::SseGateway] {
        settings.set(&[(service, origins, PAGE), (service, refusals, "1000000")]);
    }
    start_with(settings).await
}

async fn rows(database: &TestDatabase) -> Vec<i64> {
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
fn assert_limits_browsers(answer: &reqwest::Response, what: &str) {
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

/// Without the secret, an internal port says that the service lives and is ready, and nothing else.
/// The secret means nothing on a public port, and a key nothing on an internal one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_internal_port_needs_its_secret() {
    let database = TestDatabase::create().await;
    let wanted = Replicas { dashboard: 1, ..Replicas::ONE };
    let stack = start_with(settings(database.superuser(), wanted)).await;
    let wrong = internal::SECRET.replace("secret", "Secret");
    let bearer = |text: &str| format!("Bearer {text}");
    let strangers = [
        None,
        Some(bearer(TEST_KEY)),
        Some(bearer(&wrong)),
        Some(internal::SECRET.to_owned()),
        Some(bearer("")),
    ];
    let paths = [
        "/metrics",
        "/version",
        "/internal/v1/access",
        "/internal/v1/access/uses",
        "/internal/v1/stream",
        "/internal/v1/history/transfers/day?limit=1",
        "/none",
        "/",
        "/livez/x",
        "//readyz",
        "/READYZ",
    ];
    let client = client();
    for service in ServiceKind::ALL {
        let url = stack.internal_url(service);
        for authorization in &strangers {
            let send = async |method: Method, path: &str| {
                let mut request = client.request(method, format!("{url}{path}"));
                if let Some(value) = authorization {
                    request = request.header("authorization", value);
                }
                request.body("[1]").header("content-type", "application/json").send().await.unwrap()
            };
            for path in paths {
                for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
                    let answer = send(method.clone(), path).await;
                    let what = format!("{method} {url}{path} {authorization:?}");
                    assert_eq!(answer.status(), 401, "{what}");
                    assert!(answer.headers().contains_key("www-authenticate"), "{what}");
                    assert_limits_browsers(&answer, &what);
                }
            }
            for (path, bare) in [("/livez", "live\n"), ("/readyz", "{\"ready\":true}")] {
                let answer = send(Method::GET, path).await;
                assert_eq!(
                    (answer.status().as_u16(), answer.text().await.unwrap()),
                    (200, bare.to_owned())
                );
            }
        }
        let text = internal::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        assert!(text.contains("http_server_requests_total"), "{text}");
        let ready = internal::get(format!("{url}/readyz")).await.unwrap().text().await.unwrap();
        assert!(ready.contains("\"reasons\":[]"), "{ready}");
        if service != ServiceKind::StatsNotifier {
            let public = client.get(format!("{}/access", stack.url(service)));
            let public = public.bearer_auth(internal::SECRET).send().await.unwrap();
            let expected = if service == ServiceKind::Dashboard { 404 } else { 401 };
            assert_eq!(public.status(), expected, "{service}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_internal_secret_is_replaced_while_everything_runs() {
    let database = TestDatabase::create().await;
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = [internal::SECRET.to_owned(), internal::SECRET.replace("this", "that")];
    let files = [ServiceKind::StatsNotifier, ServiceKind::SseGateway]
        .map(|service| (service, folder.path().join(service.name())));
    let write = |text: &str| {
        for (_, file) in &files {
            std::fs::write(file.with_extension("next"), text).unwrap();
            std::fs::rename(file.with_extension("next"), file).unwrap();
        }
    };
    write(&old);
    let wanted = Replicas { stats_notifier: 1, sse_gateway: 1, ..Replicas::NONE };
    let mut settings = settings(database.superuser(), wanted);
    for (service, file) in &files {
        let file = file.to_str().unwrap();
        settings.set(&[(*service, "NEWCYCLE__INTERNAL__SECRET_FILE", file)]);
    }
    let stack = start_with(settings).await;
    let key: Key = TEST_KEY.parse().unwrap();
    let stream = events(&stack, &key).await;
    let accepts = async |service, secret: &str| {
        let request = client().get(format!("{}/version", stack.internal_url(service)));
        request.bearer_auth(secret).send().await.unwrap().status() == 200
    };
    for (text, old_is_valid, new_is_valid) in [
        (format!("{old}\n{new}\n"), true, true),
        (format!("{new}\n{old}\n"), true, true),
        (format!("{new}\n"), false, true),
    ] {
        write(&text);
        for (service, _) in &files {
            until("the file must be read", async || {
                let found = (accepts(*service, &old).await, accepts(*service, &new).await);
                (found == (old_is_valid, new_is_valid)).then_some(())
            })
            .await;
        }
    }
    // Something else in the file changes nothing, and a key that is made now reaches the gateway.
    write("");
    let later = new_key(&keys(&database).await, "later", &["statistics:read"]).await;
    until_admitted(&stack, ServiceKind::SseGateway, &later).await;
    assert!(accepts(ServiceKind::SseGateway, &new).await);
    assert!(!stream.is_finished());
    stream.abort();
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

/// The status of `GET /access`.
async fn standing(stack: &Stack, service: impl Into<Instance>, key: &Key) -> u16 {
    let request = client().get(format!("{}/access", stack.url(service)));
    request.bearer_auth(key.expose()).send().await.unwrap().status().as_u16()
}

async fn until_admitted(stack: &Stack, service: impl Into<Instance>, key: &Key) {
    until_answers(stack, service, key, 200).await;
}

async fn until_answers(stack: &Stack, service: impl Into<Instance>, key: &Key, status: u16) {
    let instance = service.into();
    let what = format!("{instance} must answer the key with {status}");
    until(what, async || (standing(stack, instance, key).await == status).then_some(())).await;
}

/// What the last status of a stream says of the access.
fn last_access(events: &[(String, String)]) -> Value {
    let (name, data) = events.last().unwrap();
    assert_eq!(name, "status");
    serde_json::from_str::<Value>(data).unwrap()["access"].clone()
}

/// What a new stream says first about itself.
async fn first_status(stack: &Stack, gateway: Instance, key: &Key) -> Value {
    let request = client().get(format!("{}{STREAM}", stack.url(gateway)));
    let request = request.bearer_auth(key.expose()).header("accept", "text/event-stream");
    let mut stream = request.send().await.unwrap().sse_stream();
    loop {
        if let russe::Event::Message(message) = stream.next().await.unwrap().unwrap()
            && message.event.as_deref() == Some("status")
        {
            return serde_json::from_str(&message.data).unwrap();
        }
    }
}

/// Two gateways, of which the second one follows the first one.
async fn start_tree(database: &TestDatabase) -> (Stack, [Instance; 2]) {
    let mut settings = settings(database.superuser(), Replicas { sse_gateway: 2, ..Replicas::ONE });
    let gateways = [1, 2].map(|number| ServiceKind::SseGateway.replica(number));
    let upstream = format!("http://127.0.0.1:{}", settings.ports[0].sse_gateway_internal);
    settings.variables.push((gateways[1], "NEWCYCLE__UPSTREAM__ADDRESSES", upstream));
    (start_with(settings).await, gateways)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_ends_a_loop_of_posts_an_upload_and_streams_down_a_tree() {
    let database = TestDatabase::create().await;
    let (stack, gateways) = start_tree(&database).await;
    let store = keys(&database).await;
    let key = new_key(&store, "busy", &["ingest:write", "statistics:read"]).await;
    for service in [ServiceKind::IngestApi.replica(1), gateways[0], gateways[1]] {
        until_admitted(&stack, service, &key).await;
    }
    let streams =
        [events_at(&stack, gateways[0], &key).await, events_at(&stack, gateways[1], &key).await];
    let url = format!("{}/users", stack.url(ServiceKind::IngestApi));
    let post = |media_type: &'static str, body: reqwest::Body| {
        let request = client().post(&url).bearer_auth(key.expose());
        request.header("content-type", media_type).body(body).send()
    };
    let posts = async {
        let mut stored = 0_i64;
        loop {
            let status = post("application/json", "{}".into()).await.unwrap().status().as_u16();
            if status != 201 {
                return (stored, status);
            }
            stored += 1;
        }
    };
    // Each part is a chunk: the upload stores rows until its key ends, and sends more until it is
    // answered.
    let parts = futures_util::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok::<_, std::io::Error>("{}\n".repeat(2_000)), ()))
    });
    let upload = post("application/x-ndjson", reqwest::Body::wrap_stream(parts));
    let revoke = async {
        let stored = "SELECT count(*) FROM users";
        let client = database.connect().await;
        until("both must have stored rows", async || {
            let stored: i64 = client.query_one(stored, &[]).await.unwrap().get(0);
            (stored > 4_000).then_some(())
        })
        .await;
        store.revoke("busy").await.unwrap();
    };
    let ((stored, status), answer, ()) = tokio::join!(posts, upload, revoke);
    assert_eq!((stored > 0, status), (true, 401));
    // The server closes the connection of a body that it does not read. The client may notice that
    // before it has read the answer.
    if let Ok(answer) = answer {
        assert_eq!(answer.status(), 401);
    }
    let counted = rows(&database).await;
    for stream in streams {
        let received = stream.await.unwrap();
        assert_eq!(last_access(&received), json!({ "expires_in": 0, "ended": "revoked" }));
    }
    for service in [ServiceKind::IngestApi.replica(1), gateways[0], gateways[1]] {
        until_answers(&stack, service, &key, 401).await;
    }
    assert_eq!(rows(&database).await, counted, "nothing is stored after the end");
}

/// An operator who revokes a key cannot wait until all services are connected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_revoked_while_services_are_away_ends_when_they_are_back() {
    let database = TestDatabase::create().await;
    let (mut stack, gateways) = start_tree(&database).await;
    let mut store = keys(&database).await;
    let key = new_key(&store, "first", &["statistics:read"]).await;
    let second = new_key(&store, "second", &["statistics:read"]).await;
    let ingest = ServiceKind::IngestApi.replica(1);
    for service in [ingest, gateways[0], gateways[1]] {
        until_admitted(&stack, service, &key).await;
        until_admitted(&stack, service, &second).await;
    }
    let streams =
        [events_at(&stack, gateways[0], &key).await, events_at(&stack, gateways[1], &key).await];
    stack.kill(ServiceKind::StatsNotifier).await;
    store.revoke("first").await.unwrap();
    until_answers(&stack, ingest, &key, 401).await;
    // The gateways go on with the last list, which is not an hour old.
    for gateway in gateways {
        assert_eq!(standing(&stack, gateway, &key).await, 200);
    }
    assert!(streams.iter().all(|stream| !stream.is_finished()));
    for gateway in gateways {
        until("a gateway must say that it is cut off", async || {
            (first_status(&stack, gateway, &second).await["upstream"] == "stale").then_some(())
        })
        .await;
    }
    stack.start_one(ServiceKind::StatsNotifier).unwrap();
    for (gateway, stream) in gateways.into_iter().zip(streams) {
        until_answers(&stack, gateway, &key, 401).await;
        let received = stream.await.unwrap();
        assert_eq!(last_access(&received), json!({ "expires_in": 0, "ended": "revoked" }));
        let is_stale = received.iter().any(|(_, data)| data.contains("\"upstream\":\"stale\""));
        assert!(is_stale, "{gateway} must say that it is cut off: {received:?}");
    }

    // The same for a gateway whose upstream is away.
    let stream = events_at(&stack, gateways[1], &second).await;
    stack.kill(gateways[0]).await;
    store.roll(&Key::generate(), "second", Duration::ZERO).await.unwrap();
    until_answers(&stack, ingest, &second, 401).await;
    assert_eq!(standing(&stack, gateways[1], &second).await, 200);
    stack.start_one(gateways[0]).unwrap();
    until_answers(&stack, gateways[1], &second, 401).await;
    let received = stream.await.unwrap();
    assert_eq!(last_access(&received), json!({ "expires_in": 0, "ended": "revoked" }));
}

/// The events of a stream until it ends, as names and data.
async fn events(stack: &Stack, key: &Key) -> tokio::task::JoinHandle<Vec<(String, String)>> {
    events_at(stack, ServiceKind::SseGateway.replica(1), key).await
}

async fn events_at(
    stack: &Stack,
    gateway: Instance,
    key: &Key,
) -> tokio::task::JoinHandle<Vec<(String, String)>> {
    let request = client().get(format!("{}{STREAM}", stack.url(gateway)));
    let request = request.bearer_auth(key.expose()).header("accept", "text/event-stream");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    tokio::spawn(async move {
        let mut stream = response.sse_stream();
        let mut events = Vec::new();
        while let Some(Ok(event)) = stream.next().await {
            if let russe::Event::Message(message) = event {
                let name = message.event.unwrap_or_default().to_string();
                events.push((name, message.data.to_string()));
            }
        }
        events
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_refused_and_its_streams_end() {
    let database = TestDatabase::create().await;
    let stack = start(&database).await;
    let mut store = keys(&database).await;
    let scopes = ["ingest:write", "statistics:read"];
    let [key, kept] =
        [new_key(&store, "revoked", &scopes).await, new_key(&store, "kept", &scopes).await];
    let both = [ServiceKind::IngestApi, ServiceKind::SseGateway];
    for service in both {
        until_admitted(&stack, service, &key).await;
        until_admitted(&stack, service, &kept).await;
    }
    let ending = events(&stack, &key).await;
    let going_on = events(&stack, &kept).await;
    store.revoke("revoked").await.unwrap();
    for service in both {
        until("a revoked key must be refused", async || {
            (standing(&stack, service, &key).await == 401).then_some(())
        })
        .await;
    }
    let received = ending.await.unwrap();
    let (name, data) = received.last().unwrap();
    assert_eq!(name, "status");
    let status: Value = serde_json::from_str(data).unwrap();
    assert_eq!(status["access"], json!({ "expires_in": 0, "ended": "revoked" }));
    assert!(!going_on.is_finished());

    // The new key of a name is valid at once, and the old one for a while.
    let rolled = Key::generate();
    store.roll(&rolled, "kept", Duration::from_secs(3_600)).await.unwrap();
    until_admitted(&stack, ServiceKind::SseGateway, &rolled).await;
    assert_eq!(standing(&stack, ServiceKind::SseGateway, &kept).await, 200);
    store.roll(&Key::generate(), "kept", Duration::ZERO).await.unwrap();
    until("a replaced key must be refused", async || {
        (standing(&stack, ServiceKind::SseGateway, &rolled).await == 401).then_some(())
    })
    .await;
    going_on.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrowed_key_reads_its_topics_only() {
    let database = TestDatabase::create().await;
    let stack = start(&database).await;
    let key = new_key(&keys(&database).await, "narrow", &["statistics:read:transfers/*"]).await;
    until_admitted(&stack, ServiceKind::SseGateway, &key).await;
    let get = async |path: &str| {
        let request = client().get(format!("{}{path}", stack.url(ServiceKind::SseGateway)));
        request.bearer_auth(key.expose()).header("accept", "application/json").send().await.unwrap()
    };
    for path in [STREAM, "/statistics?topic=transfers/day&topic=transfers/hour"] {
        assert_eq!(get(path).await.status(), 200, "{path}");
    }
    for path in [
        "/statistics/item-creation/day",
        "/statistics/item-creation/day?from=2026-01-01T00:00:00Z",
        "/statistics?topic=transfers/day&topic=item-creation/day&topic=item-creation/hour",
    ] {
        let answer = get(path).await;
        assert_eq!(answer.status(), 403, "{path}");
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.contains("scope=\"statistics:read:item-creation/day\""), "{challenge}");
        let problem: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(problem["scope"], "statistics:read:item-creation/day");
        assert_eq!(problem["key"], "narrow");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_cut_off_admits_for_a_while_and_says_stale() {
    let database = TestDatabase::create().await;
    let mut settings = settings(database.superuser(), Replicas::ONE);
    settings.set(&[(ServiceKind::SseGateway, "NEWCYCLE__ACCESS__OFFLINE_SECONDS", "5")]);
    let mut stack = start_with(settings).await;
    let key: Key = TEST_KEY.parse().unwrap();
    until_admitted(&stack, ServiceKind::SseGateway, &key).await;
    let stream = events(&stack, &key).await;
    stack.kill(ServiceKind::StatsNotifier).await;
    assert_eq!(standing(&stack, ServiceKind::SseGateway, &key).await, 200);
    until("a gateway must not use an old list of keys for ever", async || {
        (standing(&stack, ServiceKind::SseGateway, &key).await == 503).then_some(())
    })
    .await;
    let request = client().get(format!("{}/access", stack.url(ServiceKind::SseGateway)));
    assert_eq!(request.send().await.unwrap().status(), 401);
    let received = stream.await.unwrap();
    let statuses = received.iter().filter(|(name, _)| name == "status");
    let statuses: Vec<Value> =
        statuses.map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
    let last = statuses.last().unwrap();
    assert_eq!(last["access"], json!({ "expires_in": 0, "ended": "unknown" }));
    assert_eq!(last["upstream"], "stale");
    stack.start_one(ServiceKind::StatsNotifier).unwrap();
    until_admitted(&stack, ServiceKind::SseGateway, &key).await;
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
