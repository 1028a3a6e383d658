//! ingest-api behind `PgBouncer`, which shares a few sessions of the server between all
//! connections.

use std::process::Command;
use std::sync::Arc;

use domain::Topic;
use ingest_api::settings::Settings;
use local_stack::internal;
use local_stack::pooler::PgBouncer;
use local_stack::stack::{Replicas, ServiceKind, Stack, Variable};
use local_stack::test_database::{TestDatabase, client, service_programs};
use parking_lot::Mutex;
use postgres_kit::database::{Connections, DatabaseSettings, Session, Work};
use serde_json::{Value, json};
use service_kit::settings::ProgramSettings;
use uuid::Uuid;

use crate::operations::operations_page;
use crate::subscriber::Subscriber;
use crate::support::{DEADLINE, settings, start_with, until};

/// The sessions of the server that all connections share.
const SESSIONS: u16 = 3;

/// The requests at a time, far more than [`SESSIONS`].
const CONCURRENT: usize = 24;

/// Time limits that a busy machine does not reach.
const LONG_TIMEOUTS: [Variable<'_>; 4] = [
    (ServiceKind::IngestApi, "NEWCYCLE__LIMITS__QUERY_TIMEOUT", "60s"),
    (ServiceKind::IngestApi, "NEWCYCLE__BULK__CHUNK_TIMEOUT", "60s"),
    (ServiceKind::IngestApi, "NEWCYCLE__POOL__WAIT_TIMEOUT", "60s"),
    (ServiceKind::IngestApi, "NEWCYCLE__READ_POOL__WAIT_TIMEOUT", "60s"),
];

/// A request to ingest-api, and the answer's status and body.
async fn send(stack: &Stack, method: &str, path: &str, kind: &str, body: String) -> (u16, Value) {
    let url = format!("{}{path}", stack.url(ServiceKind::IngestApi));
    let request = client().request(method.parse().unwrap(), url);
    let answer = request.header("content-type", kind).body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn post(stack: &Stack, path: &str, body: &Value) -> u16 {
    send(stack, "POST", path, "application/json", body.to_string()).await.0
}

async fn get(stack: &Stack, path: &str) -> Value {
    let (status, body) = send(stack, "GET", path, "application/json", String::new()).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// The sum of a topic's counts, as a subscriber has them.
fn sum(subscriber: &Subscriber, topic: &str) -> Option<i64> {
    let topic: Topic = topic.parse().unwrap();
    let snapshot = subscriber.state()?.snapshot(topic, usize::MAX);
    Some(snapshot.buckets.iter().map(|bucket| bucket.count).sum())
}

/// Runs the statements of `docs/operations.md`, and checks that sessions without options then have
/// the settings of sessions with options.
async fn set_timeouts(database: &TestDatabase) {
    const CHECKED: &str = "SELECT name, setting FROM pg_settings
        WHERE name IN ('client_connection_check_interval', 'statement_timeout', 'TimeZone',
                       'idle_in_transaction_session_timeout', 'tcp_user_timeout', 'lock_timeout')
        ORDER BY name";
    let settings = async |pooler| {
        let settings = DatabaseSettings { pooler, ..database.ingest() };
        let Settings { pool, limits, .. } = Settings::load().unwrap();
        let inserts = Work::Inserts { lock_timeout: limits.lock_timeout() };
        let connections = Connections::new(&settings, &pool, inserts, "test").unwrap();
        let read = async |session: &Session| -> anyhow::Result<Vec<(String, String)>> {
            let rows = session.query(CHECKED, &[]).await?;
            Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        };
        connections.run(DEADLINE, read).await.unwrap()
    };
    let with_options = settings(false).await;
    assert_ne!(settings(true).await, with_options);
    let page = operations_page();
    let section = page.split("\n## Poolers\n").nth(1).unwrap();
    let sql = section.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    let name = format!("DATABASE {}", database.superuser().name);
    let sql = sql.replace("DATABASE newcycle", &name);
    database.connect().await.batch_execute(&sql).await.unwrap();
    assert_eq!(settings(true).await, with_options);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_in_transaction_mode_everything_is_stored_and_counted_once() {
    let database = TestDatabase::create().await;
    set_timeouts(&database).await;
    let pooler = PgBouncer::start(&database.ingest(), SESSIONS).unwrap();
    let port = pooler.port().to_string();
    let mut settings = settings(database.superuser(), Replicas::ONE);
    settings.set(&[
        (ServiceKind::IngestApi, "PGPORT", &port),
        (ServiceKind::IngestApi, "NEWCYCLE__DATABASE__POOLER", "true"),
    ]);
    settings.set(&LONG_TIMEOUTS);
    let stack = start_with(settings).await;

    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let [base_item, first_user, second_user, other_item] = ids[..] else { unreachable!() };
    let new = json!({ "id": base_item, "description": "a thing" });
    assert_eq!(post(&stack, "/base-items", &new).await, 201);
    assert_eq!(post(&stack, "/base-items", &new).await, 200);
    let other = json!({ "id": base_item, "description": "another thing" });
    assert_eq!(post(&stack, "/base-items", &other).await, 409);
    for user in [first_user, second_user] {
        assert_eq!(post(&stack, "/users", &json!({ "id": user })).await, 201);
    }
    let orphan = json!({ "id": other_item, "base_item_id": Uuid::now_v7() });
    assert_eq!(post(&stack, "/items", &orphan).await, 422);

    // Each item is sent twice, by many requests at a time.
    let items: Vec<Uuid> = (0..5 * CONCURRENT).map(|_| Uuid::now_v7()).collect();
    for some in items.chunks(CONCURRENT) {
        let bodies = some.iter().map(|id| json!({ "id": id, "base_item_id": base_item }));
        let bodies: Vec<Value> = bodies.collect();
        let twice = bodies.iter().chain(&bodies);
        let statuses =
            futures_util::future::join_all(twice.map(|body| post(&stack, "/items", body)));
        let mut statuses = statuses.await;
        statuses.sort_unstable();
        let expected: Vec<u16> = [200, 201].map(|status| [status; CONCURRENT]).concat();
        assert_eq!(statuses, expected);
    }
    let lines = |ids: &[Uuid]| -> String {
        let line = |id: &Uuid| json!({ "id": id, "base_item_id": base_item }).to_string() + "\n";
        ids.iter().map(line).collect()
    };
    let uploaded: Vec<Uuid> = (0..2_500).map(|_| Uuid::now_v7()).collect();
    for expected in [
        json!({ "accepted": 2_500, "repeated": 0, "rejected": 0 }),
        json!({ "accepted": 0, "repeated": 2_500, "rejected": 0 }),
    ] {
        let (status, counts) =
            send(&stack, "POST", "/items", "application/x-ndjson", lines(&uploaded)).await;
        assert_eq!((status, counts), (200, expected));
    }

    for item in &items[..3] {
        let path = format!("/items/{item}/ownership");
        let to = json!({ "to": first_user }).to_string();
        assert_eq!(send(&stack, "PUT", &path, "application/json", to).await.0, 204);
    }
    let passed_on = json!({ "item_id": items[0], "owner_id": second_user });
    assert_eq!(post(&stack, "/transfers", &passed_on).await, 201);
    let owner = get(&stack, &format!("/items/{}/owner", items[0])).await;
    assert_eq!(owner["owner_id"], json!(second_user));
    let owned = get(&stack, &format!("/users/{first_user}/items")).await;
    assert_eq!(owned["data"].as_array().unwrap().len(), 2, "{owned}");
    let transfers = get(&stack, &format!("/items/{}/transfers", items[0])).await;
    assert_eq!(transfers["data"].as_array().unwrap().len(), 2, "{transfers}");
    assert_eq!(get(&stack, &format!("/items/{}", items[1])).await["id"], json!(items[1]));
    let gone = format!("/items/{}", items[4]);
    assert_eq!(send(&stack, "DELETE", &gone, "application/json", String::new()).await.0, 204);

    let mut listed = Vec::new();
    let mut path = "/items?limit=1000".to_owned();
    loop {
        let page = get(&stack, &path).await;
        let rows = page["data"].as_array().unwrap();
        listed.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/items?limit=1000&after={next}");
    }
    let mut expected: Vec<String> = items.iter().chain(&uploaded).map(Uuid::to_string).collect();
    expected.retain(|id| *id != items[4].to_string());
    expected.sort();
    assert_eq!(listed, expected);

    let counted = i64::try_from(expected.len()).unwrap();
    let url = format!(
        "{}/statistics?topic=item-creation/year&topic=transfers/year",
        stack.url(ServiceKind::SseGateway)
    );
    let subscriber = Subscriber::follow(None, url, Vec::new());
    until("every item and transfer must count once", async || {
        let sums = [sum(&subscriber, "item-creation/year"), sum(&subscriber, "transfers/year")];
        (sums == [Some(counted), Some(4)]).then_some(())
    })
    .await;
    let sessions = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'newcycle_ingest'";
    let used: i64 = database.connect().await.query_one(sessions, &[]).await.unwrap().get(0);
    assert!((1..=i64::from(SESSIONS)).contains(&used), "{used} sessions");
}

/// Starts ingest-api with a database that it cannot use, and waits until its log and its readiness
/// both have `reason`.
async fn refused(database: &TestDatabase, variables: &[Variable<'_>], reason: &str) {
    let mut settings = settings(database.superuser(), Replicas { ingest_api: 1, ..Replicas::NONE });
    settings.set(variables);
    let logged = Arc::new(Mutex::new(String::new()));
    let lines = Arc::clone(&logged);
    let log = Arc::new(move |_, line: &str| *lines.lock() += line);
    let stack = Stack::start(settings, log).unwrap();
    let url = format!("{}/readyz", stack.internal_url(ServiceKind::IngestApi));
    let expected = std::fmt::from_fn(|message| {
        write!(message, "the log must have {reason:?}: {}", logged.lock())
    });
    until(expected, async || logged.lock().contains(reason).then_some(())).await;
    let ready = internal::get(&url).await.unwrap().text().await.unwrap();
    assert!(ready.contains(reason), "{ready}");
    // The answer of the public port is for anyone, and shows nothing of the inside.
    let (status, body) = send(&stack, "POST", "/users", "application/json", "{}".to_owned()).await;
    assert_eq!(status, 503, "{body}");
    assert!(!body.to_string().contains(reason), "{body}");
    let refused = std::fmt::from_fn(|message| {
        write!(message, "the refused request must be logged: {}", logged.lock())
    });
    // Without the database there is no list of keys either.
    until(refused, async || logged.lock().contains("refused a request").then_some(())).await;
    let logged = logged.lock().clone();
    assert!(!logged.contains("test-ingest") && !logged.contains("wrong-secret"), "{logged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_pooler_the_server_or_the_resolver_says_is_in_the_log_and_in_readyz() {
    let database = TestDatabase::create().await;
    let pooler = PgBouncer::start(&database.ingest(), SESSIONS).unwrap();
    let port = pooler.port().to_string();
    let ingest = ServiceKind::IngestApi;
    refused(&database, &[(ingest, "PGPORT", &port)], "unsupported startup parameter").await;
    let password = (ingest, "NEWCYCLE__DATABASE__PASSWORD", "wrong-secret");
    refused(&database, &[password], "password authentication failed").await;
    let elsewhere = [(ingest, "PGHOST", "database..invalid"), (ingest, "PGSSLMODE", "disable")];
    refused(&database, &elsewhere, "lookup address").await;
    refused(&database, &[(ingest, "PGPORT", "9")], "Connection refused").await;
}

#[test]
fn programs_that_need_a_session_of_their_own_refuse_a_pooler() {
    for program in ["stats-notifier", "migrate"] {
        let mut command = Command::new(service_programs().join(program));
        let output = command.env("NEWCYCLE__DATABASE__POOLER", "true").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{program}: {errors}");
        assert!(errors.contains("database.pooler must be false"), "{program}: {errors}");
    }
}
