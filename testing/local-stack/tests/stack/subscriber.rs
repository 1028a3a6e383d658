//! A client of a stream. It applies each frame, and keeps every state that it had.

use local_stack::test_database::client;
use std::sync::Arc;

use domain::{Frame, FrameKind, Nonce, Statistics, Topic, TopicFrame, Version};
use futures_util::StreamExt;
use parking_lot::Mutex;
use russe::reqwest_0_13::ReqwestExt;
use statistics_stream::{EventId, Selection, Status, UpstreamStatus};
use tokio_util::task::AbortOnDropHandle;

/// A state that a subscriber had.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) version: Version,
    pub(crate) topics: Vec<TopicFrame>,
}

/// What a subscriber received.
#[derive(Debug, Clone)]
pub(crate) enum Received {
    /// The stream was opened, for the first time or again.
    Opened,
    /// The status: whether the numbers follow the database.
    Status(UpstreamStatus),
    /// A frame, and the subscriber's state after it.
    Frame(FrameKind, Shown),
}

/// A subscriber of some topics. It runs until this is dropped.
pub(crate) struct Subscriber {
    received: Arc<Mutex<Vec<Received>>>,
    state: Arc<Mutex<Option<Statistics>>>,
    _running: AbortOnDropHandle<()>,
}

impl Subscriber {
    /// Follows `url`, which must stream arrays of these topics, from the state that it may already
    /// have. Reconnects with the id of the last frame.
    pub(crate) fn follow(state: Option<Statistics>, url: String, topics: Vec<Topic>) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&received);
        let shared = Arc::new(Mutex::new(state));
        let state = Arc::clone(&shared);
        let running = tokio::spawn(async move {
            loop {
                stream(&url, &topics, &shared, &list).await;
                tokio::task::yield_now().await;
            }
        });
        Self { received, state, _running: AbortOnDropHandle::new(running) }
    }

    /// Everything that it received until now.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }

    /// Its current state.
    pub(crate) fn state(&self) -> Option<Statistics> {
        self.state.lock().clone()
    }

    /// The version of its current state.
    pub(crate) fn version(&self) -> Option<Version> {
        self.state.lock().as_ref().map(Statistics::version)
    }
}

async fn stream(
    url: &str,
    topics: &[Topic],
    shared: &Mutex<Option<Statistics>>,
    list: &Mutex<Vec<Received>>,
) {
    let mut request = client().get(url).header("accept", "text/event-stream");
    let version = shared.lock().as_ref().map(Statistics::version);
    if let Some(version) = version {
        let selection = Selection::many(topics.to_vec()).unwrap();
        request = request.header("last-event-id", EventId::new(version, &selection).to_string());
    }
    let Ok(response) = request.send().await.and_then(reqwest::Response::error_for_status) else {
        return;
    };
    list.lock().push(Received::Opened);
    let mut events = response.sse_stream();
    while let Some(Ok(event)) = events.next().await {
        let russe::Event::Message(message) = event else { continue };
        let kind = match message.event.as_deref() {
            Some("snapshot") => FrameKind::Snapshot,
            Some("patch") => FrameKind::Patch,
            Some("status") => {
                let status: Status = serde_json::from_str(&message.data).unwrap();
                list.lock().push(Received::Status(status.upstream));
                continue;
            }
            _ => continue,
        };
        let parts: Vec<TopicFrame> = serde_json::from_str(&message.data).unwrap();
        let EventId { version, .. } = message.id.unwrap().parse().unwrap();
        let mut state = shared.lock();
        let state =
            state.get_or_insert_with(|| Statistics::new(Version { nonce: Nonce::new(0), tick: 0 }));
        state.apply(&Frame { kind, version, topics: parts }).unwrap();
        let topics = topics.iter().map(|&topic| state.snapshot(topic, usize::MAX)).collect();
        list.lock().push(Received::Frame(kind, Shown { version, topics }));
    }
}
