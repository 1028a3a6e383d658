//! Clients of the gateways. They behave differently, and each keeps every frame that it receives.

use std::sync::Arc;
use std::time::Duration;

use domain::{Frame, FrameKind, Nonce, Statistics, Topic, TopicFrame, Version};
use futures_util::StreamExt;
use local_stack::test_database::http_client;
use parking_lot::{Mutex, MutexGuard};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use russe::reqwest_0_13::ReqwestExt;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::fault::Violation;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Reads everything at once.
    Steady,
    /// Uses a slow link.
    Slow,
    /// Sometimes stops reading for longer than its connection can buffer.
    Stalled,
    /// Sometimes disconnects, and resumes at the next gateway with the id of its last event.
    Reconnecting,
}

/// A client closes a stream after this time without data. It requests a heartbeat every second.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client waits before it connects again.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// The state of a subscriber, and what it received since the last check.
#[derive(Debug, Default)]
pub(crate) struct Received {
    state: Option<Statistics>,
    /// The id of the last frame.
    id: Option<String>,
    frames: Vec<Frame>,
    /// What no gateway may send, in words.
    errors: Vec<String>,
    /// The number of streams that were opened.
    pub(crate) streams: u64,
    /// Whether a stream is open, and its last status was `live`.
    pub(crate) live: bool,
    /// The number of `stale` statuses.
    pub(crate) stale: u64,
}

/// What a subscriber received since the last check.
#[derive(Debug)]
pub(crate) struct ReceivedFrames {
    pub(crate) frames: Vec<Frame>,
    /// What no gateway may send, in words.
    pub(crate) errors: Vec<String>,
}

/// A subscriber of all topics. It runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Subscriber {
    name: String,
    received: Arc<Mutex<Received>>,
    _running: AbortOnDropHandle<()>,
}

impl Subscriber {
    /// Follows the gateways at `urls`, beginning with the first.
    pub(crate) fn follow(name: String, behaviour: Behaviour, urls: Vec<String>, seed: u64) -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let client = Client {
            behaviour,
            urls,
            received: Arc::clone(&received),
            random: StdRng::seed_from_u64(seed),
        };
        let running = AbortOnDropHandle::new(tokio::spawn(client.run()));
        Self { name, received, _running: running }
    }

    /// The name in error texts.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The version of its state.
    pub(crate) fn version(&self) -> Option<Version> {
        self.received().state.as_ref().map(Statistics::version)
    }

    /// Takes the frames since the last call, in the order of their arrival, and the errors of the
    /// stream.
    pub(crate) fn take(&self) -> ReceivedFrames {
        let mut received = self.received();
        let errors =
            received.errors.drain(..).map(|error| format!("{}: {error}", self.name)).collect();
        ReceivedFrames { frames: std::mem::take(&mut received.frames), errors }
    }

    /// What it has received, and its state.
    pub(crate) fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock()
    }
}

struct Client {
    behaviour: Behaviour,
    urls: Vec<String>,
    received: Arc<Mutex<Received>>,
    random: StdRng,
}

impl Client {
    async fn run(mut self) {
        let topics: Vec<String> = Topic::all().map(|topic| format!("topic={topic}")).collect();
        let query = format!("/statistics?heartbeat=1&{}", topics.join("&"));
        for number in 0_usize.. {
            let url = format!("{}{query}", self.urls[number % self.urls.len()]);
            let until = match self.behaviour {
                Behaviour::Reconnecting => {
                    Duration::from_millis(self.random.random_range(300..2_000))
                }
                Behaviour::Steady | Behaviour::Slow | Behaviour::Stalled => Duration::MAX,
            };
            // A stream may fail because of a fault. One with content that no gateway may send is an
            // error.
            match tokio::time::timeout(until.min(Duration::from_secs(86_400)), self.stream(&url))
                .await
            {
                Ok(Err(error)) if error.is::<Violation>() => {
                    self.received.lock().errors.push(format!("{error:#}"));
                }
                _ => {}
            }
            self.received.lock().live = false;
            tokio::time::sleep(RECONNECT_DELAY).await;
        }
    }

    async fn stream(&mut self, url: &str) -> anyhow::Result<()> {
        // The timeout is per read, not per event, because a snapshot takes long on a slow link.
        let client = http_client().read_timeout(SILENCE_TIMEOUT).build()?;
        let mut request = client.get(url).header("accept", "text/event-stream");
        let last = self.received.lock().id.clone();
        if let Some(id) = last {
            request = request.header("last-event-id", id);
        }
        let response =
            tokio::time::timeout(SILENCE_TIMEOUT, request.send()).await??.error_for_status()?;
        self.received.lock().streams += 1;
        let mut events = response.sse_stream();
        let mut next_stall =
            Instant::now() + Duration::from_millis(self.random.random_range(2_000..8_000));
        while let Some(event) = events.next().await {
            if let russe::Event::Message(message) = event? {
                self.take(&message)?;
            }
            if self.behaviour == Behaviour::Stalled && Instant::now() > next_stall {
                tokio::time::sleep(Duration::from_millis(self.random.random_range(500..2_500)))
                    .await;
                next_stall =
                    Instant::now() + Duration::from_millis(self.random.random_range(2_000..8_000));
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
                    .map_err(|error| Violation(format!("a status {:?}: {error}", message.data)))?;
                let mut received = self.received.lock();
                received.live = status["upstream"] == "live";
                received.stale += u64::from(status["upstream"] == "stale");
                return Ok(());
            }
            _ => return Ok(()),
        };
        let id =
            message.id.as_ref().ok_or_else(|| Violation("a frame without an id".to_owned()))?;
        // The version, and a digest of what was asked for.
        let version = id.rsplit_once('.').and_then(|(version, _)| version.parse::<Version>().ok());
        let version = version.ok_or_else(|| Violation(format!("an id {id:?}")))?;
        let topics: Vec<TopicFrame> = serde_json::from_str(&message.data)
            .map_err(|error| Violation(format!("a frame {version}: {error}")))?;
        let mut received = self.received.lock();
        let received = &mut *received;
        let before = received.state.as_ref().map(Statistics::version);
        let state = received
            .state
            .get_or_insert_with(|| Statistics::new(Version { nonce: Nonce::new(0), tick: 0 }));
        let frame = Frame { kind, version, topics };
        state
            .apply(&frame)
            .map_err(|error| Violation(format!("{version} after {before:?}: {error}")))?;
        if let Some(before) = before
            && before.nonce == version.nonce
            && before.tick >= version.tick
            // A resumed stream may begin with a snapshot of the version that the client has.
            && !(before.tick == version.tick && kind == FrameKind::Snapshot)
        {
            received.errors.push(format!("{version} came after {before}"));
        }
        received.frames.push(frame);
        received.id = Some(id.to_string());
        Ok(())
    }
}
