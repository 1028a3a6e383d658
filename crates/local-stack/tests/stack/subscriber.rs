//! A client of a stream, as others would write it: it applies what comes and remembers each state it had.

use std::sync::Arc;
use std::sync::Mutex;

use domain::{Frame, FrameKind, Nonce, Statistics, Topic, TopicFrame, Version};
use futures_util::StreamExt;
use russe::reqwest_0_13::ReqwestExt;
use tokio_util::task::AbortOnDropHandle;

use crate::checker::Shown;

/// A subscriber of some topics, which runs until dropped.
pub(crate) struct Subscriber {
    shown: Arc<Mutex<Vec<Shown>>>,
    state: Arc<Mutex<Option<Statistics>>>,
    _running: AbortOnDropHandle<()>,
}

impl Subscriber {
    /// Follows `url`, which must give arrays of these topics; reconnects with its last id.
    pub(crate) fn follow(url: String, topics: Vec<Topic>) -> Self {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let states = Arc::clone(&shown);
        let held = Arc::new(Mutex::new(None));
        let state = Arc::clone(&held);
        let running = tokio::spawn(async move {
            loop {
                stream(&url, &topics, &held, &states).await;
                tokio::task::yield_now().await;
            }
        });
        Self { shown, state, _running: AbortOnDropHandle::new(running) }
    }

    /// Every state it had until now.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        self.shown.lock().unwrap().clone()
    }

    /// The state it has now.
    pub(crate) fn state(&self) -> Option<Statistics> {
        self.state.lock().unwrap().clone()
    }

    /// The version it has now.
    pub(crate) fn version(&self) -> Option<Version> {
        self.shown.lock().unwrap().last().map(|state| state.version)
    }
}

async fn stream(url: &str, topics: &[Topic], held: &Mutex<Option<Statistics>>, states: &Mutex<Vec<Shown>>) {
    let mut request = reqwest::Client::new().get(url).header("accept", "text/event-stream");
    let version = held.lock().unwrap().as_ref().map(Statistics::version);
    if let Some(version) = version {
        request = request.header("last-event-id", version.to_string());
    }
    let Ok(response) = request.send().await.and_then(reqwest::Response::error_for_status) else { return };
    let mut events = response.sse_stream();
    while let Some(Ok(event)) = events.next().await {
        let russe::Event::Message(message) = event else { continue };
        let kind = match message.event.as_deref() {
            Some("snapshot") => FrameKind::Snapshot,
            Some("patch") => FrameKind::Patch,
            _ => continue,
        };
        let parts: Vec<TopicFrame> = serde_json::from_str(&message.data).unwrap();
        let version: Version = message.id.unwrap().parse().unwrap();
        let mut state = held.lock().unwrap();
        let state = state.get_or_insert_with(|| Statistics::new(Version { nonce: Nonce::new(0), tick: 0 }));
        state.apply(&Frame { kind, version, topics: parts }).unwrap();
        let windows = topics.iter().map(|&topic| state.snapshot(topic, usize::MAX)).collect();
        states.lock().unwrap().push(Shown { version, topics: windows });
    }
}
