//! Keys that end while they are used, and what services do that cannot reach the list of keys.

use std::time::Duration;

use access_kit::key::Key;
use futures_util::StreamExt;
use local_stack::stack::{Instance, Replicas, ServiceKind, Stack};
use local_stack::test_database::{TEST_KEY, TestDatabase};
use russe::reqwest_0_13::ReqwestExt;
use serde_json::{Value, json};

use crate::access::{STREAM, rows, start};
use crate::keys::{client, keys, new_key, standing, until_admitted, until_answers};
use crate::support::{settings, start_with, until};

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
pub(crate) async fn events(
    stack: &Stack,
    key: &Key,
) -> tokio::task::JoinHandle<Vec<(String, String)>> {
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
