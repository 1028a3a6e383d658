//! What one key or one address may take of what all clients share. The others must go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use access::store::KeyLimits;
use access_kit::key::Key;
use local_stack::internal;
use local_stack::stack::{Replicas, ServiceKind, Stack, Variable};
use local_stack::test_database::{TestDatabase, http_client};
use reqwest::{Client, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::keys::{client, keys, new_limited_key, until_admitted};
use crate::support::{DEADLINE, settings, start_with, until};

const STREAM: &str = "/statistics/transfers/day";

async fn start(database: &TestDatabase, variables: &[Variable<'_>]) -> Stack {
    let mut settings = settings(database.superuser(), Replicas::ONE);
    settings.set(variables);
    start_with(settings).await
}

/// A key that both services know.
async fn new_key(database: &TestDatabase, stack: &Stack, name: &str, limits: KeyLimits) -> Key {
    let scopes = ["ingest:read", "ingest:write", "statistics:read"];
    let key = new_limited_key(&keys(database).await, name, &scopes, limits).await;
    for service in [ServiceKind::IngestApi, ServiceKind::SseGateway] {
        until_admitted(stack, service, &key).await;
    }
    key
}

async fn get(url: &str, key: &Key) -> Response {
    client().get(url).bearer_auth(key.expose()).send().await.unwrap()
}

/// Checks that a request was refused because of a limit, and says when to try again.
async fn assert_limited(answer: Response, kind: &str, detail: &str) {
    assert_eq!(answer.status(), 429);
    let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let text = answer.text().await.unwrap();
    let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_at_most_a_quarter_of_the_streams() {
    let database = TestDatabase::create().await;
    let most = (ServiceKind::SseGateway, "NEWCYCLE__STREAM__MAX_SUBSCRIBERS", "8");
    let stack = start(&database, &[most]).await;
    let one = new_key(&database, &stack, "one", KeyLimits::default()).await;
    let other = new_key(&database, &stack, "other", KeyLimits::default()).await;
    let limits = KeyLimits { streams: Some(3), ..KeyLimits::default() };
    let wall = new_key(&database, &stack, "wall", limits).await;
    let url = format!("{}{STREAM}", stack.url(ServiceKind::SseGateway));
    let open = async |key: &Key| {
        let stream = get(&url, key).await;
        assert_eq!(stream.status(), 200);
        stream
    };
    let mut held = vec![open(&one).await, open(&one).await];
    assert_limited(get(&url, &one).await, "too-many-at-once", "\"one\" has 2 streams").await;
    // What is answered at once is not a stream.
    let client = Client::new().get(&url).bearer_auth(one.expose());
    assert_eq!(client.header("accept", "application/json").send().await.unwrap().status(), 200);
    let _others = (open(&other).await, open(&other).await);
    let _wall = (open(&wall).await, open(&wall).await, open(&wall).await);
    assert_limited(get(&url, &wall).await, "too-many-at-once", "\"wall\" has 3 streams").await;
    drop(held.pop());
    until("a stream that ended must leave its place", async || {
        (get(&url, &one).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_of_a_key_can_be_limited() {
    let database = TestDatabase::create().await;
    let stack = start(&database, &[]).await;
    let limits = KeyLimits { requests_per_second: Some(1), ..KeyLimits::default() };
    let slow = new_key(&database, &stack, "slow", limits).await;
    let free = new_key(&database, &stack, "free", KeyLimits::default()).await;
    let url = format!("{}/access", stack.url(ServiceKind::IngestApi));
    let limited = until("a key must be refused that sends more than it may", async || {
        Some(get(&url, &slow).await).filter(|answer| answer.status() == 429)
    })
    .await;
    assert_limited(limited, "too-many-requests", "\"slow\" may send 1 requests a second").await;
    for _ in 0..20 {
        assert_eq!(get(&url, &free).await.status(), 200);
    }
    until("the key must be accepted again", async || {
        (get(&url, &slow).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_keeps_no_other_from_uploading() {
    let database = TestDatabase::create().await;
    // Room for about eight uploads.
    let bytes = (ServiceKind::IngestApi, "NEWCYCLE__BULK__MAX_WAITING_BYTES", "5000000");
    let errors = (ServiceKind::IngestApi, "NEWCYCLE__BULK__MAX_REPORTED_ERRORS", "0");
    let line = (ServiceKind::IngestApi, "NEWCYCLE__BULK__MAX_LINE_BYTES", "100000");
    let stack = start(&database, &[bytes, errors, line]).await;
    let one = new_key(&database, &stack, "one", KeyLimits::default()).await;
    let other = new_key(&database, &stack, "other", KeyLimits::default()).await;
    let url = format!("{}/users", stack.url(ServiceKind::IngestApi));
    let upload = |key: &Key, body: reqwest::Body| {
        let request = Client::new().post(&url).bearer_auth(key.expose());
        request.header("content-type", "application/x-ndjson").body(body).send()
    };
    // Uploads that have begun and wait for more.
    let mut waiting = Vec::new();
    let refused = until("a key must not have all uploads", async || {
        let (sender, parts) = tokio::sync::mpsc::channel::<std::io::Result<&'static str>>(1);
        sender.send(Ok("{}\n")).await.unwrap();
        let parts = futures_util::stream::unfold(parts, async |mut parts| {
            parts.recv().await.map(|part| (part, parts))
        });
        let begun = tokio::spawn(upload(&one, reqwest::Body::wrap_stream(parts)));
        let metric = format!("{}/metrics", stack.internal_url(ServiceKind::IngestApi));
        let expected = format!("ingest_uploads {}", waiting.len() + 1);
        let begins = until("the upload must begin or be refused", async || {
            if begun.is_finished() {
                return Some(false);
            }
            let metrics = internal::get(&metric).await.unwrap().text().await.unwrap();
            metrics.lines().any(|line| line == expected).then_some(true)
        })
        .await;
        if begins {
            waiting.push((sender, begun));
            return None;
        }
        Some(begun.await.unwrap().unwrap())
    })
    .await;
    assert_limited(refused, "too-many-at-once", "uploads at the same time").await;
    assert!((1..=3).contains(&waiting.len()), "{}", waiting.len());
    assert_eq!(upload(&other, "{}\n".into()).await.unwrap().status(), 200);
    for (sender, begun) in waiting {
        drop(sender);
        assert_eq!(begun.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(upload(&one, "{}\n".into()).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_keeps_no_other_from_reading() {
    let database = TestDatabase::create().await;
    let timeout = (ServiceKind::IngestApi, "NEWCYCLE__LIMITS__QUERY_TIMEOUT", "2s");
    let stack = start(&database, &[timeout]).await;
    let one = new_key(&database, &stack, "one", KeyLimits::default()).await;
    let other = new_key(&database, &stack, "other", KeyLimits::default()).await;
    let (blocker, client) = (database.connect().await, database.connect().await);
    blocker.batch_execute("BEGIN; LOCK TABLE users").await.unwrap();
    let [users, items] =
        ["users", "items"].map(|path| format!("{}/{path}", stack.url(ServiceKind::IngestApi)));
    // More than all connections for reads.
    let reads = (0..20).map(|_| {
        let (users, one) = (users.clone(), one.clone());
        async move { get(&users, &one).await.status().as_u16() }
    });
    let reads = tokio::spawn(futures_util::future::join_all(reads));
    until("the reads of the key must wait for the table", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                       AND datname = current_database()";
        let waiting: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
        (waiting > 0).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(get(&items, &other).await.status(), 200);
    }
    let mut statuses = reads.await.unwrap();
    statuses.sort_unstable();
    statuses.dedup();
    // Those that waited for the table, and those that waited for the others.
    assert_eq!(statuses, [429, 503]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_a_bounded_number_of_connections() {
    let database = TestDatabase::create().await;
    let most = (ServiceKind::IngestApi, "NEWCYCLE__HTTP__MAX_CONNECTIONS_PER_ADDRESS", "3");
    let stack = start(&database, &[most]).await;
    let url = stack.url(ServiceKind::IngestApi);
    let address = url.trim_start_matches("http://");
    // A connection that has answered a request is certainly counted.
    let connect = async || -> Option<TcpStream> {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = b"GET /none HTTP/1.1\r\nhost: localhost\r\n\r\n";
        connection.write_all(request).await.ok()?;
        let mut status = [0; 12];
        connection.read_exact(&mut status).await.ok()?;
        assert_eq!(&status, b"HTTP/1.1 401");
        Some(connection)
    };
    let mut held = Vec::new();
    let refused =
        until("the address must have too many connections", async || match connect().await {
            Some(connection) => {
                held.push(connection);
                None
            }
            None => Some(()),
        });
    refused.await;
    assert_eq!(held.len(), 3);
    let metrics = format!("{}/metrics", stack.internal_url(ServiceKind::IngestApi));
    let metrics = internal::get(metrics).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("http_server_connections_refused_total 1"), "{metrics}");
    held.pop();
    until("a connection that ended must leave its place", connect).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_many_refusals_an_address_gets_429_and_a_valid_key_is_still_accepted() {
    let database = TestDatabase::create().await;
    let most = (ServiceKind::SseGateway, "NEWCYCLE__ACCESS__REFUSALS_PER_MINUTE", "10");
    let stack = start(&database, &[most]).await;
    let url = format!("{}/access", stack.url(ServiceKind::SseGateway));
    let guesses = async || get(&url, &Key::generate()).await;
    for _ in 0..10 {
        assert_eq!(guesses().await.status(), 401);
    }
    // One more is answered with 401 after each six seconds.
    let limited = until("an address must be limited that guesses", async || {
        Some(guesses().await).filter(|answer| answer.status() != 401)
    })
    .await;
    assert_limited(limited, "too-many-requests", "A valid key is still accepted").await;
    let valid = http_client().build().unwrap();
    for _ in 0..20 {
        assert_eq!(valid.get(&url).send().await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wrong_keys_does_not_fill_the_log() {
    const REFUSED: u64 = 500;
    let database = TestDatabase::create().await;
    let wanted = Replicas { ingest_api: 1, ..Replicas::NONE };
    let settings = settings(database.superuser(), wanted);
    let logged = Arc::<AtomicU64>::default();
    let counter = Arc::clone(&logged);
    let log = Arc::new(move |_, line: &str| {
        if line.contains("refused a request") {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut stack = Stack::start(settings, log).unwrap();
    stack.until_ready(ServiceKind::IngestApi, DEADLINE).await.unwrap();
    let url = format!("{}/users", stack.url(ServiceKind::IngestApi));
    let started = Instant::now();
    let client = Client::builder().timeout(DEADLINE).build().unwrap();
    for _ in 0..REFUSED {
        let request = client.get(&url).bearer_auth(Key::generate().expose());
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
    let metrics = format!("{}/metrics", stack.internal_url(ServiceKind::IngestApi));
    let metrics = internal::get(metrics).await.unwrap().text().await.unwrap();
    let counted = format!("access_refusals_total{{reason=\"unknown\"}} {REFUSED}");
    assert!(metrics.contains(&counted), "{metrics}");
    // The limit of a minute at once, and then one each second.
    let most = 60 + started.elapsed().as_secs() + 1;
    assert!(stack.stop(DEADLINE).await.is_empty());
    let logged = logged.load(Ordering::Relaxed);
    assert!((1..=most).contains(&logged), "{logged} lines, and at most {most} are right");
}
