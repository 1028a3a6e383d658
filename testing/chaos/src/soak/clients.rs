//! Clients that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How many come and go at the same time.
const CLIENTS: usize = 24;

/// A page of hours, which are kept for good.
const HISTORY: &str = "/statistics/transfers/hour?from=2024-02-28T00:00:00Z&limit=50";

#[derive(Debug)]
struct Shared {
    paused: watch::Sender<bool>,
    connected: AtomicUsize,
    streams: AtomicUsize,
    pages: AtomicUsize,
}

/// The clients, until dropped.
#[derive(Debug)]
pub(super) struct Clients {
    shared: Arc<Shared>,
    gateways: Vec<String>,
    _running: JoinSet<()>,
}

impl Clients {
    /// Clients of these gateways.
    pub(super) fn start(gateways: Vec<String>, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            paused: watch::Sender::new(false),
            connected: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
        });
        let (mut running, mut random) = (JoinSet::new(), StdRng::seed_from_u64(seed));
        for _ in 0..CLIENTS {
            running.spawn(come_and_go(Arc::clone(&shared), gateways.clone(), random.fork()));
        }
        Self { shared, gateways, _running: running }
    }

    /// Lets nobody come any more, or lets them come again.
    pub(super) fn pause(&self, paused: bool) {
        self.shared.paused.send_replace(paused);
    }

    /// How many are there.
    pub(super) fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::SeqCst)
    }

    /// How many streams have been opened.
    pub(super) fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// How many pages of history have been had.
    pub(super) fn pages(&self) -> usize {
        self.shared.pages.load(Ordering::Relaxed)
    }

    /// Asks each gateway for some pages of history; one that does not answer just now is not waited for.
    pub(super) async fn history(&self) {
        for gateway in &self.gateways {
            for _ in 0..5 {
                let request = reqwest::Client::new().get(format!("{gateway}{HISTORY}"));
                let request = request.header("accept", "application/json").timeout(Duration::from_secs(2));
                let answer = request.send().await.and_then(reqwest::Response::error_for_status);
                self.shared.pages.fetch_add(usize::from(answer.is_ok()), Ordering::Relaxed);
            }
        }
    }
}

async fn come_and_go(shared: Arc<Shared>, gateways: Vec<String>, mut random: StdRng) {
    let topics = ["transfers/second", "item-creation/minute", "transfers/day", "item-creation/millisecond"];
    let mut paused = shared.paused.subscribe();
    loop {
        // The sender lives as long as the clients.
        drop(paused.wait_for(|paused| !paused).await);
        shared.connected.fetch_add(1, Ordering::SeqCst);
        // One that came while a pause began leaves again, as any other.
        let some = random.random_range(1..=topics.len());
        let topics: Vec<String> = topics[..some].iter().map(|topic| format!("topic={topic}")).collect();
        let url =
            format!("{}/statistics?{}", gateways[random.random_range(0..gateways.len())], topics.join("&"));
        let stay = Duration::from_millis(random.random_range(50..1_500));
        let stream = async {
            let answer = reqwest::Client::new().get(url).send().await?.error_for_status()?;
            shared.streams.fetch_add(1, Ordering::Relaxed);
            let mut bytes = answer.bytes_stream();
            while bytes.next().await.transpose()?.is_some() {}
            Ok::<_, reqwest::Error>(())
        };
        // However it ends, the next one comes.
        let _ended = tokio::time::timeout(stay, stream).await;
        shared.connected.fetch_sub(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(random.random_range(10..200))).await;
    }
}
