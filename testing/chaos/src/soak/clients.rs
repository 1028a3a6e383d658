//! Clients that connect and disconnect all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use local_stack::test_database::client;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The number of clients.
const CLIENTS: usize = 24;

/// A page of hours, which have no retention.
const HISTORY: &str = "/statistics/transfers/hour?from=2024-02-28T00:00:00Z&limit=50";

#[derive(Debug, Default)]
struct Shared {
    paused: watch::Sender<bool>,
    connected: AtomicUsize,
    streams: AtomicUsize,
    pages: AtomicUsize,
}

/// The clients. They run until this is dropped.
#[derive(Debug)]
pub(super) struct Clients {
    shared: Arc<Shared>,
    gateways: Vec<String>,
    _running: JoinSet<()>,
}

impl Clients {
    /// Starts the clients of these gateways.
    pub(super) fn start(gateways: Vec<String>, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let mut running = JoinSet::new();
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..CLIENTS {
            running.spawn(connect_and_disconnect(
                Arc::clone(&shared),
                gateways.clone(),
                random.fork(),
            ));
        }
        Self { shared, gateways, _running: running }
    }

    /// Pauses the clients before their next connection, or lets them continue.
    pub(super) fn pause(&self, paused: bool) {
        self.shared.paused.send_replace(paused);
    }

    /// The number of connected clients.
    pub(super) fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::SeqCst)
    }

    /// The number of streams that were opened.
    pub(super) fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// The number of history pages that were received.
    pub(super) fn pages(&self) -> usize {
        self.shared.pages.load(Ordering::Relaxed)
    }

    /// Requests some pages of history from each gateway. Requests that fail are not repeated.
    pub(super) async fn request_history(&self) {
        for gateway in &self.gateways {
            for _ in 0..5 {
                let request = client().get(format!("{gateway}{HISTORY}"));
                let request =
                    request.header("accept", "application/json").timeout(Duration::from_secs(2));
                let answer = request.send().await.and_then(reqwest::Response::error_for_status);
                self.shared.pages.fetch_add(usize::from(answer.is_ok()), Ordering::Relaxed);
            }
        }
    }
}

async fn connect_and_disconnect(shared: Arc<Shared>, gateways: Vec<String>, mut random: StdRng) {
    let topics =
        ["transfers/second", "item-creation/minute", "transfers/day", "item-creation/millisecond"];
    let mut paused = shared.paused.subscribe();
    loop {
        // This cannot fail, because the sender lives as long as the clients.
        drop(paused.wait_for(|paused| !paused).await);
        shared.connected.fetch_add(1, Ordering::SeqCst);
        // A client that connects while a pause begins disconnects after its time, like any other.
        let some = random.random_range(1..=topics.len());
        let topics: Vec<String> =
            topics[..some].iter().map(|topic| format!("topic={topic}")).collect();
        let url = format!(
            "{}/statistics?{}",
            gateways[random.random_range(0..gateways.len())],
            topics.join("&")
        );
        let stay = Duration::from_millis(random.random_range(50..1_500));
        let stream = async {
            let answer = client().get(url).send().await?.error_for_status()?;
            shared.streams.fetch_add(1, Ordering::Relaxed);
            let mut bytes = answer.bytes_stream();
            while bytes.next().await.transpose()?.is_some() {}
            Ok::<_, reqwest::Error>(())
        };
        // The stream may end by itself, by an error or by the timeout. The next one begins in any
        // case.
        let _ended = tokio::time::timeout(stay, stream).await;
        shared.connected.fetch_sub(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(random.random_range(10..200))).await;
    }
}
