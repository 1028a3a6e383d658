//! A client of a stream, as others would write it: it applies what comes and remembers each state it had.

use std::sync::Arc;
use std::sync::Mutex;

use domain::{Frame, FrameKind, Nonce, Statistics, Topic, TopicFrame, Version};
use futures_util::StreamExt;
use russe::reqwest_0_13::ReqwestExt;
use statistics_stream::{Status, Upstream};
use tokio_util::task::AbortOnDropHandle;

/// One state that a subscriber had.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) version: Version,
    pub(crate) topics: Vec<TopicFrame>,
}

/// What came of a stream.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// It was opened, for the first time or again.
    Opened,
    /// Whether the numbers follow the database.
    Status(Upstream),
    /// A frame, and the state that the subscriber then had.
    Frame(FrameKind, Shown),
}

/// A subscriber of some topics, which runs until dropped.
pub(crate) struct Subscriber {
    heard: Arc<Mutex<Vec<Heard>>>,
    state: Arc<Mutex<Option<Statistics>>>,
    _running: AbortOnDropHandle<()>,
}

impl Subscriber {
    /// Follows `url`, which must give arrays of these topics; reconnects with its last id.
    pub(crate) fn follow(url: String, topics: Vec<Topic>) -> Self {
        Self::follow_from(None, url, topics)
    }

    /// [`Subscriber::follow`], from a state that it already has.
    pub(crate) fn follow_from(state: Option<Statistics>, url: String, topics: Vec<Topic>) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&heard);
        let held = Arc::new(Mutex::new(state));
        let state = Arc::clone(&held);
        let running = tokio::spawn(async move {
            loop {
                stream(&url, &topics, &held, &list).await;
                tokio::task::yield_now().await;
            }
        });
        Self { heard, state, _running: AbortOnDropHandle::new(running) }
    }

    /// Everything that came until now.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The state it has now.
    pub(crate) fn state(&self) -> Option<Statistics> {
        self.state.lock().unwrap().clone()
    }

    /// The version it has now.
    pub(crate) fn version(&self) -> Option<Version> {
        self.state.lock().unwrap().as_ref().map(Statistics::version)
    }
}

async fn stream(url: &str, topics: &[Topic], held: &Mutex<Option<Statistics>>, list: &Mutex<Vec<Heard>>) {
    let mut request = reqwest::Client::new().get(url).header("accept", "text/event-stream");
    let version = held.lock().unwrap().as_ref().map(Statistics::version);
    if let Some(version) = version {
        request = request.header("last-event-id", version.to_string());
    }
    let Ok(response) = request.send().await.and_then(reqwest::Response::error_for_status) else { return };
    list.lock().unwrap().push(Heard::Opened);
    let mut events = response.sse_stream();
    while let Some(Ok(event)) = events.next().await {
        let russe::Event::Message(message) = event else { continue };
        let kind = match message.event.as_deref() {
            Some("snapshot") => FrameKind::Snapshot,
            Some("patch") => FrameKind::Patch,
            Some("status") => {
                let status: Status = serde_json::from_str(&message.data).unwrap();
                list.lock().unwrap().push(Heard::Status(status.upstream));
                continue;
            }
            _ => continue,
        };
        let parts: Vec<TopicFrame> = serde_json::from_str(&message.data).unwrap();
        let version: Version = message.id.unwrap().parse().unwrap();
        let mut state = held.lock().unwrap();
        let state = state.get_or_insert_with(|| Statistics::new(Version { nonce: Nonce::new(0), tick: 0 }));
        state.apply(&Frame { kind, version, topics: parts }).unwrap();
        let topics = topics.iter().map(|&topic| state.snapshot(topic, usize::MAX)).collect();
        list.lock().unwrap().push(Heard::Frame(kind, Shown { version, topics }));
    }
}
