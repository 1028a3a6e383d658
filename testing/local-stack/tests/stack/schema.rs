//! Services refuse to start on a schema that does not allow them, start on a newer one that does,
//! and go on when tables change.

use std::sync::Arc;

use local_stack::internal;
use local_stack::stack::{Replicas, ServiceKind, Stack, Variable};
use local_stack::test_database::{TestDatabase, http_client, newer_schema};
use parking_lot::Mutex;
use postgres_kit::schema::VERSION;
use serde_json::json;
use uuid::Uuid;

use crate::support::{DEADLINE, settings, start_with, until};

/// Each pool uses one connection, which stays, so that its prepared statements are used again:
/// requests are sent one after another, and a pool gives out the connection that was used last.
const ONE_CONNECTION: [Variable<'_>; 9] = [
    (ServiceKind::IngestApi, "NEWCYCLE__HTTP__WORKERS", "1"),
    (ServiceKind::IngestApi, "NEWCYCLE__BULK__MAX_CONCURRENT_COMMITS", "1"),
    (ServiceKind::IngestApi, "NEWCYCLE__WRITES__MAX_EXTRA_WRITERS", "0"),
    (ServiceKind::IngestApi, "NEWCYCLE__POOL__CONNECTION_LIFETIME", "1h"),
    (ServiceKind::IngestApi, "NEWCYCLE__READ_POOL__CONNECTION_LIFETIME", "1h"),
    (ServiceKind::StatsNotifier, "NEWCYCLE__HISTORY__POOL__CONNECTION_LIFETIME", "1h"),
    (ServiceKind::IngestApi, "NEWCYCLE__POOL__MAX_CONNECTIONS", "5"),
    (ServiceKind::IngestApi, "NEWCYCLE__READ_POOL__MAX_CONNECTIONS", "1"),
    (ServiceKind::StatsNotifier, "NEWCYCLE__HISTORY__POOL__MAX_CONNECTIONS", "1"),
];

const TABLES: [&str; 10] = [
    "base_items",
    "users",
    "items",
    "transfers",
    "count_log",
    "rollup",
    "rollup_cursor",
    "rollup_unit",
    "refinery_schema_history",
    "schema_compatibility",
];

/// Starts one replica of a service on a database whose schema was changed, and returns what it
/// logs.
async fn refusal(service: ServiceKind, replicas: Replicas, change: &str) -> String {
    let database = TestDatabase::create().await;
    database.connect().await.batch_execute(change).await.unwrap();
    let settings = settings(database.superuser(), replicas);
    let logged = Arc::new(Mutex::new(String::new()));
    let lines = Arc::clone(&logged);
    let log = Arc::new(move |_, line: &str| lines.lock().push_str(line));
    let mut stack = Stack::start(settings, log).unwrap();
    let ended = tokio::time::timeout(DEADLINE, stack.ended()).await;
    let ended = ended.expect("the service must exit").to_string();
    assert_eq!(ended, format!("{service} has ended (exit status: 1): its log says why"));
    // Its last lines may not have been read yet.
    until("the log must name the schema", async || logged.lock().contains("schema").then_some(()))
        .await;
    logged.lock().clone()
}

#[tokio::test]
async fn a_schema_that_does_not_allow_this_release_is_refused() {
    let older = "DELETE FROM refinery_schema_history WHERE version > 1";
    let newer = newer_schema(VERSION + 1);
    let cases: [(&str, &[&str]); 3] = [
        ("DROP TABLE refinery_schema_history", &["no schema yet: run `migrate`"]),
        (older, &["schema version 1,", "run `migrate`"]),
        (&newer, &["schema version 1000,", "start a newer release"]),
    ];
    let services = [
        (ServiceKind::IngestApi, Replicas { ingest_api: 1, ..Replicas::NONE }),
        (ServiceKind::StatsNotifier, Replicas { stats_notifier: 1, ..Replicas::NONE }),
    ];
    for (service, replicas) in services {
        for (change, texts) in cases {
            let logged = refusal(service, replicas, change).await;
            assert!(texts.iter().all(|text| logged.contains(text)), "{service}: {logged}");
        }
    }
}

/// A service that is restarted while an upgrade is under way, or after a return to this release.
#[tokio::test]
async fn a_newer_schema_that_allows_this_release_is_used() {
    let database = TestDatabase::create().await;
    database.connect().await.batch_execute(&newer_schema(VERSION)).await.unwrap();
    let stack = start_with(settings(database.superuser(), Replicas::ONE)).await;
    use_every_statement(&stack, Uuid::now_v7()).await;
}

/// Sends one request of each kind that reads or writes the tables.
async fn use_every_statement(stack: &Stack, base_item: Uuid) {
    let [ingest, gateway] =
        [ServiceKind::IngestApi, ServiceKind::SseGateway].map(|service| stack.url(service));
    let client = http_client().build().unwrap();
    let [user, item, transfer] = [0; 3].map(|_| Uuid::now_v7());
    let posts = [
        ("/base-items", json!({ "id": base_item, "description": "a thing" })),
        ("/users", json!({ "id": user })),
        ("/items", json!({ "id": item, "base_item_id": base_item })),
        ("/transfers", json!({ "id": transfer, "item_id": item, "owner_id": user })),
    ];
    // The second time, each row is read back.
    for (path, body) in posts.iter().chain(&posts) {
        let request = client.post(format!("{ingest}{path}"));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }
    let gets = [
        format!("{ingest}/base-items?limit=1"),
        format!("{ingest}/base-items/{base_item}"),
        format!("{ingest}/users?limit=1"),
        format!("{ingest}/users/{user}/items"),
        format!("{ingest}/items?limit=1"),
        format!("{ingest}/items/{item}/owner"),
        format!("{ingest}/items/{item}/transfers"),
        format!("{ingest}/transfers?limit=1"),
        format!("{gateway}/statistics/transfers/day?from=2024-01-01T00:00:00Z"),
        format!("{gateway}/statistics/transfers/millisecond?from=2024-01-01T00:00:00Z"),
    ];
    for url in gets {
        let answer = client.get(&url).header("accept", "application/json").send().await.unwrap();
        assert!(answer.status().is_success(), "{url}: {}", answer.text().await.unwrap());
    }
    for path in [format!("/transfers/{transfer}"), format!("/items/{item}")] {
        let answer = client.delete(format!("{ingest}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{path}");
    }
}

async fn metrics(stack: &Stack, service: ServiceKind) -> String {
    let url = format!("{}/metrics", stack.internal_url(service));
    internal::get(url).await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_table_fails_no_request_and_ends_no_term() {
    let database = TestDatabase::create().await;
    let mut settings = settings(database.superuser(), Replicas::ONE);
    settings.set(&ONE_CONNECTION);
    let stack = start_with(settings).await;
    let base_item = Uuid::now_v7();
    use_every_statement(&stack, base_item).await;
    let owner = database.connect().await;
    for table in TABLES {
        let add = format!("ALTER TABLE {table} ADD COLUMN added integer NOT NULL DEFAULT 7");
        owner.batch_execute(&add).await.unwrap();
        use_every_statement(&stack, base_item).await;
    }
    // Statements name their columns, so no plan has become stale.
    let replanned = |pool: &str, times: u64| {
        format!("ingest_replanned_statements_total{{pool=\"{pool}\"}} {times}\n")
    };
    let before = metrics(&stack, ServiceKind::IngestApi).await;
    for pool in ["read", "write"] {
        assert!(before.contains(&replanned(pool, 0)), "{before}");
    }
    // Another type makes the plans of all statements stale that return the column. The first of
    // them is sent again, and the others are prepared again before they are needed.
    owner
        .batch_execute("ALTER TABLE base_items ALTER COLUMN description TYPE varchar(1000)")
        .await
        .unwrap();
    use_every_statement(&stack, base_item).await;
    let after = metrics(&stack, ServiceKind::IngestApi).await;
    for pool in ["read", "write"] {
        assert!(after.contains(&replanned(pool, 1)), "{after}");
    }
    let notifier = metrics(&stack, ServiceKind::StatsNotifier).await;
    assert!(notifier.contains("notifier_terms_total 1\n"), "{notifier}");
    assert!(notifier.contains("notifier_history_replanned_statements_total 0\n"), "{notifier}");
}
