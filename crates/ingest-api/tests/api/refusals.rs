//! Requests that fail: the answer names what is wrong, and nothing is stored.

use std::time::{Duration, Instant};

use access_kit::settings::AccessMode;
use ingest_api::settings::Settings;
use local_stack::test_database::TestDatabase;
use postgres_kit::database::{Connections, Session, Work};
use serde_json::json;
use service_kit::settings::{NonZeroDuration, ProgramSettings as _};
use uuid::Uuid;

use crate::support::{Api, JSON, NDJSON};

/// Writes ids into a path or a body: BASE, USER and ITEM are stored, UNKNOWN is not.
async fn with_ids(api: &Api) -> impl Fn(&str) -> String {
    let (base_item, user, item) = api.parents().await;
    let unknown = Uuid::now_v7().to_string();
    let ids = [("BASE", base_item), ("USER", user), ("ITEM", item), ("UNKNOWN", unknown)];
    move |text| ids.iter().fold(text.to_owned(), |text, (name, id)| text.replace(name, id))
}

#[tokio::test]
async fn a_wrong_body_names_the_field_and_stores_nothing() {
    let api = Api::start().await;
    let with_ids = with_ids(&api).await;
    let before = api.rows().await;
    let transfer =
        |time: &str| format!(r#"{{"item_id":"ITEM","owner_id":"USER","timestamp":"{time}"}}"#);
    let described = |text: &str| format!(r#"{{"description":"{text}"}}"#);
    let bodies: &[(&str, &str, u16, Option<&str>)] = &[
        ("/items", "{", 400, None),
        ("/items", "", 400, None),
        ("/users", "{} trailing", 400, None),
        ("/items", "7", 422, Some("the body")),
        ("/items", "{}", 422, Some("base_item_id")),
        ("/items", r#"{"base_item_id":7}"#, 422, Some("base_item_id")),
        ("/items", r#"{"base_item_id":"seven"}"#, 422, Some("base_item_id")),
        ("/items", r#"{"base_item_id":"BASE","colour":"red"}"#, 422, Some("colour")),
        ("/items", r#"{"base_item_id":"BASE","id":"x"}"#, 422, Some("id")),
        // A producer that sends null has lost the id that would make a retry harmless.
        ("/items", r#"{"base_item_id":"BASE","id":null}"#, 422, Some("id")),
        ("/users", r#"{"id":null}"#, 422, Some("id")),
        ("/items", r#"{"base_item_id":"UNKNOWN"}"#, 422, Some("base_item_id")),
        ("/items", r#"{"base_item_id":"BASE","created_at":"soon"}"#, 422, Some("created_at")),
        ("/transfers", r#"{"item_id":"UNKNOWN","owner_id":"USER"}"#, 422, Some("item_id")),
        ("/transfers", r#"{"item_id":"ITEM","owner_id":"UNKNOWN"}"#, 422, Some("owner_id")),
        ("/transfers", &transfer("2026-11-23T09:42:00.123457Z"), 422, Some("timestamp")),
        ("/transfers", &transfer("0000-12-31T23:59:59Z"), 422, Some("timestamp")),
        ("/transfers", &transfer("infinity"), 422, Some("timestamp")),
        ("/transfers", &transfer("2026-02-30T00:00:00Z"), 422, Some("timestamp")),
        ("/base-items", &described(r"a\u0000b"), 422, Some("description")),
        ("/base-items", &described(&"é".repeat(1_001)), 422, Some("description")),
        ("/base-items", r#"{"description":null}"#, 422, Some("description")),
        ("/base-items", &described(&"x".repeat(70_000)), 413, None),
    ];
    for (path, body, status, field) in bodies {
        let answer = api.post_text(path, JSON, &with_ids(body)).await;
        let start: String = body.chars().take(100).collect();
        assert_eq!(answer.status, *status, "{path} {start}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path} {start}");
        assert_eq!(answer.body["field"].as_str(), *field, "{path} {start}: {}", answer.body);
        assert_eq!(answer.body["status"], *status);
        assert!(answer.body["type"].as_str().unwrap().starts_with("/problems/"));
    }
    assert_eq!(api.rows().await, before);
}

#[tokio::test]
async fn a_wrong_path_query_header_or_media_type_is_named() {
    let api = Api::start().await;
    let with_ids = with_ids(&api).await;
    let before = api.rows().await;
    let requests = [
        ("GET /items/seven", "", "", 400, Some("id")),
        ("GET /items/UNKNOWN", "", "", 404, None),
        ("GET /items/UNKNOWN/owner", "", "", 404, None),
        ("GET /items/UNKNOWN/transfers", "", "", 404, None),
        ("GET /users/UNKNOWN/items", "", "", 404, None),
        ("DELETE /transfers/UNKNOWN", "", "", 404, None),
        ("GET /nothing", "", "", 404, None),
        ("PATCH /items", "", "", 405, None),
        ("GET /items?limit=0", "", "", 400, Some("limit")),
        ("GET /items?limit=1001", "", "", 400, Some("limit")),
        ("GET /items?limit=99999999999999999999", "", "", 400, Some("limit")),
        ("GET /items?limit=1&limit=2", "", "", 400, Some("limit")),
        ("GET /items?after=x", "", "", 400, Some("after")),
        ("GET /items?sort=id", "", "", 400, Some("sort")),
        ("POST /users", "", "{}", 415, None),
        ("POST /users", "text/plain", "{}", 415, None),
        ("PUT /items/UNKNOWN/ownership", JSON, r#"{"to":"USER"}"#, 404, None),
        ("PUT /items/ITEM/ownership", JSON, r#"{"to":"UNKNOWN"}"#, 422, Some("to")),
        ("PUT /items/ITEM/ownership", JSON, "{}", 422, Some("to")),
    ];
    let requests = requests.map(|(request_line, content_type, body, status, field)| {
        let (method, path) = request_line.split_once(' ').unwrap();
        let mut request = api.request(method, &with_ids(path)).body(with_ids(body));
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        (format!("{request_line} {content_type} {body}"), request, status, field)
    });
    let with_key = [JSON, NDJSON].map(|content_type| {
        let request = api.request("POST", "/users").header("content-type", content_type).body("{}");
        let request = request.header("idempotency-key", "once");
        (format!("a key and {content_type}"), request, 400, Some("Idempotency-Key"))
    });
    for (name, request, status, field) in requests.into_iter().chain(with_key) {
        let answer = api.send(request).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{name}");
        assert_eq!(answer.body["field"].as_str(), field, "{name}: {}", answer.body);
    }
    assert_eq!(api.rows().await, before);
}

/// The database refuses connections, or accepts them and never answers. Then only the time limit of
/// the request can end it, because the other time limits are longer than the test.
///
/// The limit is long, so that a loaded machine does not delay the answers by as much again.
#[tokio::test]
async fn without_a_database_the_answer_is_503_within_the_time_limit() {
    const LIMIT: NonZeroDuration = NonZeroDuration::from_millis(5_000);
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    for (port, earliest) in [(9, Duration::ZERO), (silent_port, LIMIT.get())] {
        let hour = NonZeroDuration::from_millis(3_600_000);
        let api = Api::start_with(|settings| {
            // Keys cannot be checked without a database.
            settings.access.mode = AccessMode::Open;
            settings.database.port = port.into();
            settings.database.connect_timeout = hour;
            settings.pool.wait_timeout = hour.get();
            settings.limits.query_timeout = LIMIT;
        })
        .await;
        let start = Instant::now();
        let body = json!({});
        let (answer, ready) = tokio::join!(api.post("/users", &body), api.internal("/readyz"));
        let elapsed = start.elapsed();
        assert!((earliest..2 * LIMIT.get()).contains(&elapsed), "port {port}: {elapsed:?}");
        assert_eq!((answer.status, &answer.body["type"]), (503, &json!("/problems/unavailable")));
        assert!(answer.headers.contains_key("retry-after"));
        let body = answer.body.to_string();
        assert!(!body.contains("127.0.0.1"), "the address is internal: {body}");
        assert_eq!((ready.status, &ready.body["ready"]), (503, &json!(false)));
    }
}

/// A lock that another session holds stands for a database that hangs.
#[tokio::test]
async fn a_database_that_hangs_is_503_and_its_connection_is_not_reused() {
    let api = Api::start().await;
    let blocker = api.database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE users").await.unwrap();
    for _ in 0..3 {
        assert_eq!(api.post("/users", &json!({})).await.status, 503);
    }
    // The server must end these statements too: otherwise they would use up its connections.
    let observer = api.database.connect().await;
    let start = Instant::now();
    let waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while !observer.query(waiting, &[]).await.unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "statements that timed out must end");
    }
    blocker.batch_execute("ROLLBACK").await.unwrap();
    for _ in 0..20 {
        assert_eq!(api.post("/users", &json!({})).await.status, 201);
    }
}

/// The statement of a client that went away is dropped in the same way.
#[tokio::test]
async fn a_connection_whose_statement_was_dropped_is_not_reused() {
    const SOON: Duration = Duration::from_secs(10);
    let database = TestDatabase::create().await;
    let mut pool = Settings::load().unwrap().pool;
    pool.max_connections = 1.try_into().unwrap();
    let connections = Connections::new(&database.ingest(), &pool, Work::Reads, "test").unwrap();
    let process = async |session: &Session| -> anyhow::Result<i32> {
        Ok(session.query("SELECT pg_backend_pid()", &[]).await?[0].try_get(0)?)
    };
    let first = connections.run(SOON, process).await.unwrap();
    let second = connections.run(SOON, process).await.unwrap();
    assert_eq!(second, first, "an idle connection is reused");
    let sleep = async |session: &Session| -> anyhow::Result<u64> {
        Ok(session.execute("SELECT pg_sleep(600)", &[]).await?)
    };
    let observer = database.connect().await;
    let asleep = async {
        let find = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        while observer.query(find, &[&first]).await.unwrap().is_empty() {}
    };
    tokio::select! {
        slept = connections.run(10 * SOON, sleep) => panic!("the statement must not end: {slept:?}"),
        asleep = tokio::time::timeout(SOON, asleep) => asleep.expect("the statement must start"),
    }
    assert_ne!(connections.run(SOON, process).await.unwrap(), first);
}

/// If a network fails silently, the server does not learn that the client is gone. The long time
/// limit of the client stands for this.
#[tokio::test]
async fn the_server_ends_statements_that_take_too_long() {
    let api = Api::start_with(|settings| {
        settings.limits.query_timeout = NonZeroDuration::from_millis(60_000);
        settings.pool.statement_timeout = NonZeroDuration::from_millis(300);
    })
    .await;
    let blocker = api.database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE users").await.unwrap();
    let answer = api.post("/users", &json!({})).await;
    assert_eq!((answer.status, &answer.body["type"]), (503, &json!("/problems/unavailable")));
}

/// Examples are a deadlock, and a statement that a standby had to cancel.
#[tokio::test]
async fn an_error_that_a_retry_may_not_meet_is_503() {
    let api = Api::start().await;
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql \
         AS 'BEGIN RAISE SQLSTATE ''40001''; END'; \
         CREATE TRIGGER fail BEFORE INSERT ON users EXECUTE FUNCTION fail()";
    api.database.connect().await.batch_execute(fail).await.unwrap();
    assert_eq!(api.post("/users", &json!({})).await.status, 503);
}

/// The test drops the constraint that prevents such a time.
#[tokio::test]
async fn a_row_that_cannot_be_read_back_is_500_and_not_503() {
    let api = Api::start().await;
    let (.., item) = api.parents().await;
    let corrupt = format!(
        "SET session_replication_role = replica; \
         ALTER TABLE items DROP CONSTRAINT items_created_at_range; \
         UPDATE items SET created_at = 'infinity' WHERE id = '{item}'"
    );
    api.database.connect().await.batch_execute(&corrupt).await.unwrap();
    let repeated = json!({ "id": item, "base_item_id": Uuid::now_v7() });
    for answer in [
        api.get(&format!("/items/{item}")).await,
        api.get("/items").await,
        api.post("/items", &repeated).await,
    ] {
        assert_eq!((answer.status, &answer.body["type"]), (500, &json!("/problems/internal")));
        assert!(!answer.headers.contains_key("retry-after"), "a retry fails in the same way");
        let body = answer.body.to_string();
        assert!(!body.contains("created_at"), "the column is internal: {body}");
    }
    let metrics = api.metrics().await;
    assert!(metrics.contains("ingest_database_errors_total{kind=\"unreadable\"} 3"), "{metrics}");
}

/// Tracing tools add headers to every request of a page, and a reload adds `pragma`.
#[tokio::test]
async fn only_listed_origins_may_send_requests_from_a_page_and_with_any_header() {
    const HEADERS: [&str; 5] =
        ["content-type", "traceparent", "sentry-trace", "pragma", "x-request-id"];
    let api = Api::start().await;
    let preflight = async |origin: &str, method: &str, path: &str| {
        let request = api.request("OPTIONS", path).header("origin", origin.to_owned());
        let request = request
            .header("access-control-request-method", method.to_owned())
            .header("access-control-request-headers", HEADERS.join(", "));
        request.send().await.unwrap()
    };
    let item = format!("/items/{}", Uuid::now_v7());
    let ownership = format!("{item}/ownership");
    for (method, path) in [("POST", "/items"), ("PUT", &ownership), ("DELETE", &item)] {
        let allowed = preflight("http://dashboard.example", method, path).await;
        assert_eq!(allowed.status(), 200, "{method}");
        let value = |name: &str| {
            let value = allowed.headers().get(name).unwrap_or_else(|| panic!("{method}: {name}"));
            value.to_str().unwrap().to_ascii_lowercase()
        };
        assert_eq!(value("access-control-allow-origin"), "http://dashboard.example");
        let methods = value("access-control-allow-methods");
        assert!(methods.split(", ").any(|name| name.eq_ignore_ascii_case(method)), "{methods}");
        let headers = value("access-control-allow-headers");
        for header in HEADERS {
            assert!(headers.split(", ").any(|name| name == header), "{header}: {headers}");
        }

        let refused = preflight("http://elsewhere.example", method, path).await;
        let mut names = refused.headers().keys().map(reqwest::header::HeaderName::as_str);
        let granted = names.find(|name| name.starts_with("access-control-allow"));
        assert_eq!(granted, None, "{method}");
    }
}

/// A website can let its own name lead here, and its pages could then send events.
#[tokio::test]
async fn a_request_for_another_host_is_refused_and_stores_nothing() {
    let api = Api::start_with(|settings| {
        settings.http.allowed_hosts = vec!["events.example".parse().unwrap()];
    })
    .await;
    let post = |host: &str| {
        let request = api.request("POST", "/users").header("content-type", JSON);
        api.send(request.header("host", host).body("{}"))
    };
    let refused = post("evil.example").await;
    assert_eq!((refused.status, &refused.body["setting"]), (421, &json!("http.allowed_hosts")));
    let users = api.database.connect().await.query_one("SELECT count(*) FROM users", &[]).await;
    assert_eq!(users.unwrap().get::<_, i64>(0), 0);
    for host in ["events.example", "localhost:8080", "127.0.0.1"] {
        assert_eq!(post(host).await.status, 201, "{host}");
    }
}
