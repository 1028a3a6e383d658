//! Clients of the gateways, of every temper; each keeps every frame that it got.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Frame, FrameKind, Nonce, Statistics, Topic, TopicFrame, Version};
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use russe::reqwest_0_13::ReqwestExt;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// It reads what comes.
    Steady,
    /// It is on a slow line.
    Slow,
    /// It stops reading now and then, for longer than its connection can hold.
    Stalled,
    /// It leaves now and then, and resumes at the next gateway with the id of its last event.
    Restless,
}

/// After how long without a word a client gives a stream up. It asks for a heartbeat each second.
const SILENCE: Duration = Duration::from_secs(5);

/// How long a client waits before it connects again.
const RETRY: Duration = Duration::from_millis(100);

/// What a subscriber has, and has had since it was last asked.
#[derive(Debug, Default)]
struct Held {
    state: Option<Statistics>,
    frames: Vec<Frame>,
    wrong: Vec<String>,
    streams: u64,
    /// Whether the gateway said last, on the stream that is open, that the numbers are live.
    live: bool,
    /// How often it has said that they are stale.
    stale: u64,
}

/// A subscriber of all topics, until dropped.
#[derive(Debug)]
pub struct Subscriber {
    name: String,
    held: Arc<Mutex<Held>>,
    _running: AbortOnDropHandle<()>,
}

impl Subscriber {
    /// One of the gateways at `urls`, of which it prefers the first.
    #[must_use]
    pub fn follow(name: String, temper: Temper, urls: Vec<String>, seed: u64) -> Self {
        let held = Arc::new(Mutex::new(Held::default()));
        let client = Client { temper, urls, held: Arc::clone(&held), random: StdRng::seed_from_u64(seed) };
        let running = AbortOnDropHandle::new(tokio::spawn(client.run()));
        Self { name, held, _running: running }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that it has now.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.held().state.as_ref().map(Statistics::version)
    }

    /// Whether it was told last that the numbers are live, and still listens.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.held().live
    }

    /// How often it was told that they are stale.
    #[must_use]
    pub fn told_stale(&self) -> u64 {
        self.held().stale
    }

    /// How many streams it has opened.
    #[must_use]
    pub fn streams(&self) -> u64 {
        self.held().streams
    }

    /// All frames since it was last asked, in the order in which they came, and what was wrong with it.
    #[must_use]
    pub fn take(&self) -> (Vec<Frame>, Vec<String>) {
        let mut held = self.held();
        let wrong = held.wrong.drain(..).map(|wrong| format!("{}: {wrong}", self.name)).collect();
        (std::mem::take(&mut held.frames), wrong)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Client {
    temper: Temper,
    urls: Vec<String>,
    held: Arc<Mutex<Held>>,
    random: StdRng,
}

impl Client {
    async fn run(mut self) {
        let topics: Vec<String> = Topic::all().map(|topic| format!("topic={topic}")).collect();
        let query = format!("/statistics?heartbeat=1&{}", topics.join("&"));
        for number in 0_usize.. {
            let url = format!("{}{query}", self.urls[number % self.urls.len()]);
            let until = match self.temper {
                Temper::Restless => Duration::from_millis(self.random.random_range(300..2_000)),
                Temper::Steady | Temper::Slow | Temper::Stalled => Duration::MAX,
            };
            // A stream that fails is what the runs are about; one that says what it must not is noted.
            match tokio::time::timeout(until.min(Duration::from_secs(86_400)), self.stream(&url)).await {
                Ok(Err(wrong)) if wrong.is::<Wrong>() => self.held().wrong.push(format!("{wrong:#}")),
                _ => {}
            }
            self.held().live = false;
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn stream(&mut self, url: &str) -> anyhow::Result<()> {
        // For each read, not for an event: a whole state takes its time on a slow line.
        let client = reqwest::Client::builder().read_timeout(SILENCE).build()?;
        let mut request = client.get(url).header("accept", "text/event-stream");
        let last = self.held().state.as_ref().map(Statistics::version);
        if let Some(version) = last {
            request = request.header("last-event-id", version.to_string());
        }
        let response = tokio::time::timeout(SILENCE, request.send()).await??.error_for_status()?;
        self.held().streams += 1;
        let mut events = response.sse_stream();
        let mut next_stall = Instant::now() + Duration::from_millis(self.random.random_range(2_000..8_000));
        while let Some(event) = events.next().await {
            if let russe::Event::Message(message) = event? {
                self.take(&message)?;
            }
            if self.temper == Temper::Stalled && Instant::now() > next_stall {
                tokio::time::sleep(Duration::from_millis(self.random.random_range(500..2_500))).await;
                next_stall = Instant::now() + Duration::from_millis(self.random.random_range(2_000..8_000));
            }
        }
        Ok(())
    }

    fn take(&self, message: &russe::Message) -> anyhow::Result<()> {
        let kind = match message.event.as_deref() {
            Some("snapshot") => FrameKind::Snapshot,
            Some("patch") => FrameKind::Patch,
            Some("status") => {
                let status: serde_json::Value = serde_json::from_str(&message.data)
                    .map_err(|error| Wrong(format!("a status {:?}: {error}", message.data)))?;
                let mut held = self.held();
                held.live = status["upstream"] == "live";
                held.stale += u64::from(status["upstream"] == "stale");
                return Ok(());
            }
            _ => return Ok(()),
        };
        let id = message.id.as_ref().ok_or_else(|| Wrong("a frame without an id".to_owned()))?;
        let version: Version = id.parse().map_err(|_| Wrong(format!("an id {id:?}")))?;
        let topics: Vec<TopicFrame> = serde_json::from_str(&message.data)
            .map_err(|error| Wrong(format!("a frame {version}: {error}")))?;
        let mut held = self.held();
        let held = &mut *held;
        let before = held.state.as_ref().map(Statistics::version);
        let state =
            held.state.get_or_insert_with(|| Statistics::new(Version { nonce: Nonce::new(0), tick: 0 }));
        let frame = Frame { kind, version, topics };
        state.apply(&frame).map_err(|error| Wrong(format!("{version} after {before:?}: {error}")))?;
        if let Some(before) = before
            && before.nonce == version.nonce
            && before.tick >= version.tick
            // Resuming may say once more what the client has.
            && !(before.tick == version.tick && kind == FrameKind::Snapshot)
        {
            held.wrong.push(format!("{version} came after {before}"));
        }
        held.frames.push(frame);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a gateway must never say.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Wrong(String);
