//! Whatever is wrong is named, and changes nothing.

use std::time::{Duration, Instant};

use deadpool_postgres::Client;
use ingest_api::settings::Settings;
use local_stack::test_database::TestDatabase;
use postgres_kit::database::Connections;
use serde_json::json;
use uuid::Uuid;

use crate::support::Api;

#[tokio::test]
async fn a_wrong_body_names_the_field_and_stores_nothing() {
    let api = Api::start().await;
    let (base_item, user, item) = api.parents().await;
    let before = api.rows().await;
    let nobody = Uuid::now_v7();
    let transfer = |time: &str| format!(r#"{{"item_id":"{item}","owner_id":"{user}","timestamp":"{time}"}}"#);
    let long = "é".repeat(1_001);
    let bodies: &[(&str, &str, u16, Option<&str>)] = &[
        ("/items", "{", 400, None),
        ("/items", "", 400, None),
        ("/users", "{} trailing", 400, None),
        ("/items", "[]", 422, Some("the body")),
        ("/items", "{}", 422, Some("base_item_id")),
        ("/items", r#"{"base_item_id":7}"#, 422, Some("base_item_id")),
        ("/items", r#"{"base_item_id":"seven"}"#, 422, Some("base_item_id")),
        ("/items", &format!(r#"{{"base_item_id":"{base_item}","colour":"red"}}"#), 422, Some("colour")),
        ("/items", &format!(r#"{{"base_item_id":"{base_item}","id":"x"}}"#), 422, Some("id")),
        ("/items", &format!(r#"{{"base_item_id":"{nobody}"}}"#), 422, Some("base_item_id")),
        (
            "/items",
            &format!(r#"{{"base_item_id":"{base_item}","created_at":"soon"}}"#),
            422,
            Some("created_at"),
        ),
        ("/transfers", &format!(r#"{{"item_id":"{nobody}","owner_id":"{user}"}}"#), 422, Some("item_id")),
        ("/transfers", &format!(r#"{{"item_id":"{item}","owner_id":"{nobody}"}}"#), 422, Some("owner_id")),
        ("/transfers", &transfer("2026-11-23T09:42:00.123457Z"), 422, Some("timestamp")),
        ("/transfers", &transfer("0000-12-31T23:59:59Z"), 422, Some("timestamp")),
        ("/transfers", &transfer("infinity"), 422, Some("timestamp")),
        ("/transfers", &transfer("2026-02-30T00:00:00Z"), 422, Some("timestamp")),
        ("/base-items", r#"{"description":"a\u0000b"}"#, 422, Some("description")),
        ("/base-items", &format!(r#"{{"description":"{long}"}}"#), 422, Some("description")),
        ("/base-items", r#"{"description":null}"#, 422, Some("description")),
        ("/base-items", &format!(r#"{{"description":"{}"}}"#, "x".repeat(70_000)), 413, None),
    ];
    for (path, body, status, field) in bodies {
        let answer = api.post_text(path, "application/json", body).await;
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
async fn a_wrong_path_query_header_or_type_is_named() {
    let api = Api::start().await;
    let (_, user, item) = api.parents().await;
    let before = api.rows().await;
    let nobody = Uuid::now_v7();
    let json_body = |method: &str, path: &str, body: &str| {
        api.request(method, path).header("content-type", "application/json").body(body.to_owned())
    };
    let requests = [
        (api.request("GET", "/items/seven"), 400, Some("id")),
        (api.request("GET", &format!("/items/{nobody}")), 404, None),
        (api.request("GET", &format!("/items/{nobody}/owner")), 404, None),
        (api.request("GET", &format!("/items/{nobody}/transfers")), 404, None),
        (api.request("GET", &format!("/users/{nobody}/items")), 404, None),
        (api.request("DELETE", &format!("/transfers/{nobody}")), 404, None),
        (api.request("GET", "/nothing"), 404, None),
        (api.request("PATCH", "/items"), 405, None),
        (api.request("GET", "/items?limit=0"), 400, Some("limit")),
        (api.request("GET", "/items?limit=1001"), 400, Some("limit")),
        (api.request("GET", "/items?limit=99999999999999999999"), 400, Some("limit")),
        (api.request("GET", "/items?limit=1&limit=2"), 400, Some("limit")),
        (api.request("GET", "/items?after=x"), 400, Some("after")),
        (api.request("GET", "/items?sort=id"), 400, Some("sort")),
        (api.request("POST", "/users").body("{}"), 415, None),
        (api.request("POST", "/users").header("content-type", "text/plain").body("{}"), 415, None),
        (json_body("POST", "/users", "{}").header("idempotency-key", "once"), 400, Some("Idempotency-Key")),
        (
            api.request("POST", "/users")
                .header("content-type", "application/x-ndjson")
                .header("idempotency-key", "once")
                .body("{}"),
            400,
            Some("Idempotency-Key"),
        ),
        (
            json_body("PUT", &format!("/items/{nobody}/ownership"), &format!(r#"{{"to":"{user}"}}"#)),
            404,
            None,
        ),
        (
            json_body("PUT", &format!("/items/{item}/ownership"), &format!(r#"{{"to":"{nobody}"}}"#)),
            422,
            Some("to"),
        ),
        (json_body("PUT", &format!("/items/{item}/ownership"), "{}"), 422, Some("to")),
    ];
    for (place, (request, status, field)) in requests.into_iter().enumerate() {
        let answer = api.send(request).await;
        assert_eq!(answer.status, status, "request {place}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "request {place}");
        assert_eq!(answer.body["field"].as_str(), field, "request {place}: {}", answer.body);
    }
    assert_eq!(api.rows().await, before);
}

#[tokio::test]
async fn without_a_database_the_answer_is_503_and_soon() {
    let api = Api::start_with(|settings| settings.database.port = 9).await;
    let asked = Instant::now();
    let answer = api.post("/users", &json!({})).await;
    assert_eq!((answer.status, &answer.body["type"]), (503, &json!("/problems/unavailable")));
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!answer.body.to_string().contains("127.0.0.1"), "no internals: {}", answer.body);
    let ready = api.internal("/readyz").await;
    assert_eq!((ready.status, &ready.body["ready"]), (503, &json!(false)));
    assert!(asked.elapsed() < Duration::from_secs(4), "two answers took {:?}", asked.elapsed());
}

/// A lock held by another session stands for a database that hangs.
#[tokio::test]
async fn a_database_that_hangs_is_503_and_its_connection_is_not_used_again() {
    let api = Api::start().await;
    let blocker = api.database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE users").await.unwrap();
    for _ in 0..3 {
        assert_eq!(api.post("/users", &json!({})).await.status, 503);
    }
    // Nor does the server go on with what nobody waits for: its connections would pile up, until it takes no more.
    let (observer, given_up) = (api.database.connect().await, Instant::now());
    let waiting =
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while !observer.query(waiting, &[]).await.unwrap().is_empty() {
        assert!(given_up.elapsed() < Duration::from_secs(20), "statements that were given up must end");
    }
    blocker.batch_execute("ROLLBACK").await.unwrap();
    for _ in 0..20 {
        assert_eq!(api.post("/users", &json!({})).await.status, 201);
    }
}

/// As where the client has gone.
#[tokio::test]
async fn a_connection_is_not_used_again_whose_statement_nobody_waits_for() {
    const SOON: Duration = Duration::from_secs(10);
    let database = TestDatabase::create().await;
    let mut pool = Settings::load().unwrap().pool;
    pool.connections = 1.try_into().unwrap();
    let connections = Connections::new(&database.ingest(), &pool, "test").unwrap();
    let session = async |client: &Client| -> anyhow::Result<i32> {
        Ok(client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?)
    };
    let first = connections.run(SOON, session).await.unwrap();
    assert_eq!(connections.run(SOON, session).await.unwrap(), first, "one that has answered is used again");
    let sleep = async |client: &Client| -> anyhow::Result<()> {
        Ok(client.batch_execute("SELECT pg_sleep(600)").await?)
    };
    let observer = database.connect().await;
    let asleep = async {
        let find = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        while observer.query(find, &[&first]).await.unwrap().is_empty() {}
    };
    tokio::select! {
        slept = connections.run(10 * SOON, sleep) => panic!("it must sleep: {slept:?}"),
        asleep = tokio::time::timeout(SOON, asleep) => asleep.expect("it must be asked to sleep"),
    }
    assert_ne!(connections.run(SOON, session).await.unwrap(), first);
}

/// As behind a line that is cut: the server sees no end of the connection, which the test keeps from it.
#[tokio::test]
async fn the_server_gives_up_by_itself_what_takes_too_long() {
    let api = Api::start_with(|settings| {
        settings.limits.query_timeout = service_kit::settings::NonZeroDuration::from_millis(60_000);
        settings.pool.statement_timeout = service_kit::settings::NonZeroDuration::from_millis(300);
    })
    .await;
    let blocker = api.database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE users").await.unwrap();
    let answer = api.post("/users", &json!({})).await;
    assert_eq!((answer.status, &answer.body["type"]), (503, &json!("/problems/unavailable")));
}

/// As where two transactions waited for each other, or a standby had to end a statement.
#[tokio::test]
async fn what_may_succeed_when_it_is_sent_again_is_503() {
    let api = Api::start().await;
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql \
         AS 'BEGIN RAISE SQLSTATE ''40001''; END'; \
         CREATE TRIGGER fail BEFORE INSERT ON users EXECUTE FUNCTION fail()";
    api.database.connect().await.batch_execute(fail).await.unwrap();
    assert_eq!(api.post("/users", &json!({})).await.status, 503);
}

#[tokio::test]
async fn only_listed_origins_may_send_from_a_page() {
    let api = Api::start().await;
    let preflight = |origin: &str| {
        let request = api.request("OPTIONS", "/items").header("origin", origin.to_owned());
        request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type")
    };
    let allowed = preflight("http://dashboard.example").send().await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "http://dashboard.example");
    let refused = preflight("http://elsewhere.example").send().await.unwrap();
    assert!(!refused.headers().contains_key("access-control-allow-origin"));
}
