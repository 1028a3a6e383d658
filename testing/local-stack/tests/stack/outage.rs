//! Postgres stops, and starts again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::{Statistics, Topic};
use futures_util::StreamExt;
use local_stack::stack::{Replicas, ServiceKind, Stack, Variable};
use local_stack::test_database::{client, installation};
use russe::reqwest_0_13::ReqwestExt;
use serde_json::{Value, json};

use crate::own_postgres::OwnPostgres;
use crate::subscriber::Subscriber;
use crate::support::{DEADLINE, settings, start_with, until, until_ready, within};

/// How soon ingest-api must refuse a request while Postgres cannot be reached.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeouts of ingest-api that are far longer than [`REFUSAL_TIMEOUT`]. A refusal that had to wait
/// for one of them fails the test.
const NEVER_REACHED: [Variable<'_>; 4] = [
    (ServiceKind::IngestApi, "NEWCYCLE__DATABASE__CONNECT_TIMEOUT", "120s"),
    (ServiceKind::IngestApi, "NEWCYCLE__POOL__WAIT_TIMEOUT", "120s"),
    (ServiceKind::IngestApi, "NEWCYCLE__POOL__STATEMENT_TIMEOUT", "120s"),
    (ServiceKind::IngestApi, "NEWCYCLE__LIMITS__QUERY_TIMEOUT", "120s"),
];

async fn post(stack: &Stack, path: &str, body: &Value) -> reqwest::Response {
    let request = client().post(format!("{}{path}", stack.url(ServiceKind::IngestApi)));
    let request = request.header("content-type", "application/json").body(body.to_string());
    request.send().await.unwrap()
}

/// Posts while Postgres cannot be reached. The request must be refused [in time](within).
async fn assert_refused(stack: &Stack, path: &str, body: &Value) {
    let refused = within(REFUSAL_TIMEOUT, post(stack, path, body)).await;
    let refused =
        refused.unwrap_or_else(|| panic!("the refusal must come within {REFUSAL_TIMEOUT:?}"));
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(problem["status"], 503, "{problem}");
}

/// Reads a stream until its status is `wanted`.
async fn until_status(
    events: &mut (impl StreamExt<Item = Result<russe::Event, russe::Error>> + Unpin),
    wanted: &str,
) {
    let status = async {
        while let Some(event) = events.next().await {
            let russe::Event::Message(message) = event.unwrap() else { continue };
            if message.event.as_deref() == Some("status") {
                let data: Value = serde_json::from_str(&message.data).unwrap();
                if data["upstream"] == wanted {
                    return;
                }
            }
        }
        panic!("the stream must not end");
    };
    tokio::time::timeout(DEADLINE, status)
        .await
        .unwrap_or_else(|_| panic!("the status must become {wanted}"));
}

fn counted(state: Option<&Statistics>) -> Option<i64> {
    let topic: Topic = "item-creation/year".parse().unwrap();
    Some(state?.snapshot(topic, usize::MAX).buckets.iter().map(|bucket| bucket.count).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_writes_are_refused_and_numbers_are_stale_until_it_returns() {
    let postgres = OwnPostgres::new(installation(), "outage");
    let mut cluster = postgres.start_migrated().await;
    let stack = start_with(settings(postgres.database(), Replicas::ONE)).await;
    let base_item =
        json!({ "id": "0192d3a4-0000-7000-8000-000000000001", "description": "a thing" });
    assert_eq!(post(&stack, "/base-items", &base_item).await.status(), 201);
    let item = json!({ "base_item_id": base_item["id"] });
    assert_eq!(post(&stack, "/items", &item).await.status(), 201);
    let url = format!("{}/statistics/item-creation/year", stack.url(ServiceKind::SseGateway));
    let mut events = client().get(&url).send().await.unwrap().sse_stream();
    until_status(&mut events, "live").await;
    let url = format!(
        "{}/statistics?topic=item-creation/year&topic=transfers/year",
        stack.url(ServiceKind::SseGateway)
    );
    let subscriber = Subscriber::follow(None, url, Vec::new());
    until_counted(&subscriber, 1).await;

    cluster.stop();
    assert_refused(&stack, "/items", &item).await;
    until_status(&mut events, "stale").await;
    assert_eq!(counted(subscriber.state().as_ref()), Some(1), "the numbers must not change");

    let _again = postgres.start();
    until_status(&mut events, "live").await;
    until("events must be accepted again", async || {
        (post(&stack, "/items", &item).await.status() == 201).then_some(())
    })
    .await;
    // The refused item was not stored.
    until_counted(&subscriber, 2).await;
    assert!(stack.stop(DEADLINE).await.is_empty(), "all services must stop without an error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_writes_are_refused_without_waiting_for_a_timeout() {
    let postgres = OwnPostgres::new(installation(), "refusal");
    let mut cluster = postgres.start_migrated().await;
    let ingest_api = Replicas { ingest_api: 1, ..Replicas::NONE };
    let mut settings = settings(postgres.database(), ingest_api);
    settings.set(&NEVER_REACHED);
    let reasons = Arc::new(AtomicU64::new(0));
    let logged = Arc::clone(&reasons);
    let log = Arc::new(move |_, line: &str| {
        logged.fetch_add(u64::from(line.contains("does not answer")), Ordering::Relaxed);
    });
    let mut stack = Stack::start(settings, log).unwrap();
    until_ready(&mut stack).await;
    let user = json!({});
    // The pool then has a connection, which breaks.
    assert_eq!(post(&stack, "/users", &user).await.status(), 201);
    cluster.stop();
    let began = Instant::now();
    // The first request may find the broken connection, and the others cannot connect.
    for _ in 0..10 {
        assert_refused(&stack, "/users", &user).await;
    }
    // The log has the reason at once, and then once a minute.
    let logged = async || (reasons.load(Ordering::Relaxed) > 0).then_some(());
    until("the reason must be logged", logged).await;
    assert!(stack.stop(DEADLINE).await.is_empty(), "it must stop without an error");
    let minutes = began.elapsed().as_secs() / 60;
    assert!(reasons.load(Ordering::Relaxed) <= 1 + minutes, "an outage must not fill the log");
}

async fn until_counted(subscriber: &Subscriber, count: i64) {
    until(&format!("{count} items must be counted"), async || {
        (counted(subscriber.state().as_ref()) == Some(count)).then_some(())
    })
    .await;
}
