//! Clients that use whichever replica answers, as clients behind a load balancer do.

use std::sync::Arc;
use std::time::Duration;

use local_stack::test_database::client;
use parking_lot::Mutex;
use reqwest::{Client, RequestBuilder};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::history::{ExpectedState, Table};
use crate::world::TestWorld;

/// How long one replica may take to answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(25);

/// One client that posts items, and one that asks for counts. They end when this is dropped.
pub(super) struct Clients {
    seen: Arc<Mutex<Seen>>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Default)]
struct Seen {
    requests: u64,
    /// The longest time until one of the replicas answered.
    slowest: Duration,
    failures: Vec<String>,
}

impl Clients {
    pub(super) fn start(world: &TestWorld, gateways: &[String]) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let posting = post(world.clone(), Arc::clone(&seen));
        let reading = read(gateways.to_vec(), Arc::clone(&seen));
        let tasks = [tokio::spawn(posting), tokio::spawn(reading)].map(AbortOnDropHandle::new);
        Self { seen, _tasks: tasks }
    }

    /// The requests that failed at both replicas, each with the reasons.
    pub(super) fn failures(&self) -> Vec<String> {
        self.seen.lock().failures.clone()
    }

    /// The number of requests, and how long the slowest took.
    pub(super) fn totals(&self) -> (u64, Duration) {
        let seen = self.seen.lock();
        (seen.requests, seen.slowest)
    }
}

/// Posts one item after another.
async fn post(world: TestWorld, seen: Arc<Mutex<Seen>>) {
    let client = client();
    for first in (0..world.ingest.len()).cycle() {
        let in_flight = world.history.begin().await;
        let id = Uuid::now_v7();
        world.history.note(Table::Items, id, ExpectedState::Unknown);
        let body = json!({ "id": id, "base_item_id": world.parents.base_item }).to_string();
        let request = |client: &Client, base: &str| {
            let request = client.post(format!("{base}/items")).body(body.clone());
            request.header("content-type", "application/json")
        };
        if at_either(&client, &world.ingest, first, request, &seen).await {
            world.history.note(Table::Items, id, ExpectedState::Stored);
            world.history.count(ExpectedState::Stored);
        }
        drop(in_flight);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks for the counts again and again.
async fn read(gateways: Vec<String>, seen: Arc<Mutex<Seen>>) {
    let client = client();
    for first in (0..gateways.len()).cycle() {
        let request = |client: &Client, base: &str| {
            let counts = client.get(format!("{base}/statistics/transfers/day"));
            counts.header("accept", "application/json")
        };
        at_either(&client, &gateways, first, request, &seen).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sends a request to the replica of an index, and to the next ones if it fails there. Returns
/// whether one of them answered with success.
async fn at_either(
    client: &Client,
    replicas: &[String],
    first: usize,
    request: impl Fn(&Client, &str) -> RequestBuilder,
    seen: &Mutex<Seen>,
) -> bool {
    let started = Instant::now();
    let mut reasons = Vec::new();
    for base in replicas.iter().cycle().skip(first).take(replicas.len()) {
        let reason = match request(client, base).timeout(ATTEMPT_TIMEOUT).send().await {
            Ok(answer) if answer.status().is_success() => {
                let mut seen = seen.lock();
                seen.requests += 1;
                seen.slowest = seen.slowest.max(started.elapsed());
                return true;
            }
            Ok(answer) => {
                let status = answer.status();
                format!("{status}: {}", answer.text().await.unwrap_or_default())
            }
            Err(error) => format!("{error:?}"),
        };
        reasons.push(format!("{base}: {reason}"));
    }
    seen.lock().failures.push(format!("a request failed at each replica: {}", reasons.join("; ")));
    false
}
