//! The life of one subscriber.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use bytes::Bytes;
use domain::Version;
use futures_util::Stream;
use futures_util::stream::unfold;
use russe::{Event, Message};
use service_kit::unsent::UnsentBytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::encoder::encode_event;
use crate::event_id::EventId;
use crate::hub::{Announcement, Drain, Hub, Next};
use crate::lease::Lease;
use crate::selection::{Payload, Selection};
use crate::status::{Status, StreamAccess};

/// The minimum time between two whole windows on a stream. Each costs as much as a whole snapshot
/// (up to 200 kB), so at the pace of patches, one stream would take megabytes a second. A client
/// that wants more follows patches.
const FULL_INTERVAL: Duration = Duration::from_secs(1);

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The maximum number of subscribers is reached.
    #[error("the maximum number of clients is connected; try again later, or another server")]
    Full,
    /// The hub is closed.
    #[error("this server is stopping; try again later, or another server")]
    Closed,
}

/// Streams a selection to a client: from the version of `last_event_id` if that is an id of the
/// same selection, otherwise from snapshots.
///
/// A client can ask for a shorter `heartbeat`, to notice sooner when the stream falls silent. It is
/// rounded down to a multiple of the heartbeat for gateways, so no client needs a timer of its own.
///
/// Large events reserve room in `budget`. If there is none, the stream waits for it.
///
/// When `lease` ends, a last status says so, and the stream ends.
///
/// # Errors
/// [`StreamError`] if the hub accepts no more subscribers.
pub fn stream_response(
    hub: &Arc<Hub>,
    budget: UnsentBytes,
    selection: Selection,
    last_event_id: Option<EventId>,
    heartbeat: Option<Duration>,
    lease: Box<dyn Lease>,
) -> Result<HttpResponse, StreamError> {
    let beats = |heartbeat: Duration| {
        let beat = hub.settings.internal_heartbeat.get().as_millis();
        u64::try_from(heartbeat.as_millis() / beat).unwrap_or(u64::MAX).max(1)
    };
    let beats = heartbeat.map_or(u64::MAX, beats);
    respond(hub, budget, selection, last_event_id, beats, Some(lease))
}

/// Streams all topics to another gateway, with heartbeats short enough to notice a frozen upstream.
///
/// # Errors
/// [`StreamError`] if the hub accepts no more subscribers.
pub fn internal_stream_response(
    hub: &Arc<Hub>,
    last_event_id: Option<EventId>,
) -> Result<HttpResponse, StreamError> {
    respond(hub, UnsentBytes::unlimited(), Selection::all(), last_event_id, 1, None)
}

fn respond(
    hub: &Arc<Hub>,
    budget: UnsentBytes,
    selection: Selection,
    last_event_id: Option<EventId>,
    beats: u64,
    lease: Option<Box<dyn Lease>>,
) -> Result<HttpResponse, StreamError> {
    if hub.closed.is_cancelled() {
        return Err(StreamError::Closed);
    }
    if !hub.admit() {
        return Err(StreamError::Full);
    }
    let place = Place(Arc::clone(hub));
    let subscriber = Subscriber {
        announcements: hub.announced.subscribe(),
        draining: hub.drain.subscribe(),
        drain_position: rand::random(),
        beats,
        place,
        budget,
        version: last_event_id.and_then(|id| id.version_of(&selection)),
        selection,
        seen_version: None,
        complete: None,
        next_frame: Instant::now(),
        sent_status: None,
        sent_frame_last: false,
        opened: false,
        waiting: None,
        lease,
        lease_checked: 0,
        lease_ended: false,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        // A proxy that compresses would hold events back.
        .insert_header((CACHE_CONTROL, "no-store, no-transform"))
        // nginx and its relatives would buffer the events otherwise.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .streaming(subscriber.events()))
}

/// A subscriber's place in the hub. Dropped, and so given back, however the connection ends.
struct Place(Arc<Hub>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}

struct Subscriber {
    place: Place,
    budget: UnsentBytes,
    announcements: watch::Receiver<Announcement>,
    draining: watch::Receiver<Option<Drain>>,
    /// When this stream ends while the hub drains: from 0, the beginning of the drain, to 1, its
    /// end.
    drain_position: f64,
    /// The status is repeated after this many heartbeats for gateways, if not sooner.
    beats: u64,
    selection: Selection,
    /// The version that the client has.
    version: Option<Version>,
    /// [`Announcement::version`] when the last frame was made.
    seen_version: Option<u64>,
    /// The frames that were sent have every event that was committed before.
    complete: Option<Instant>,
    /// When the next frame may be made.
    next_frame: Instant,
    /// The announcement of the last status that was sent.
    sent_status: Option<Announcement>,
    /// Whether the last event was a frame.
    sent_frame_last: bool,
    opened: bool,
    waiting: Option<Waiting>,
    /// `None` for another gateway.
    lease: Option<Box<dyn Lease>>,
    /// [`Announcement::internal_status`] when the lease was checked.
    lease_checked: u64,
    lease_ended: bool,
}

/// The next event of a subscriber, while it waits for its turn.
struct Waiting {
    /// A task, so that its turn ends even if the client does not read, and is not lost when a
    /// status is sent meanwhile.
    event: AbortOnDropHandle<Option<(Bytes, Version)>>,
    /// The announcement for which the event was requested.
    since: Announcement,
    /// The event has every event of the database that was committed before.
    complete: Option<Instant>,
    /// The versions that the event skips.
    skipped: u64,
}

impl Waiting {
    /// `None` if there is nothing to send any more. With the moment until which it is complete.
    async fn event(waiting: &mut Option<Self>) -> (Option<(Bytes, Version, u64)>, Option<Instant>) {
        let Some(Self { event, skipped, complete, .. }) = waiting else { return pending().await };
        // Fails only when the runtime ends.
        let event = event.await.ok().flatten();
        let event = event.map(|(event, version)| (event, version, *skipped));
        let complete = *complete;
        *waiting = None;
        (event, complete)
    }
}

impl Subscriber {
    fn events(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
        unfold(self, |mut subscriber| async move {
            // Subscribers in step share these bytes. `service_kit::server` writes them in pieces.
            let event = subscriber.next().await?;
            Some((Ok(event), subscriber))
        })
    }

    /// The next event. Called when the client is ready for it, and not before: all changes until
    /// then are conflated into one frame. While a large event waits for its turn, statuses are
    /// sent, and the stream can end.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.opened {
            self.opened = true;
            return Some(self.retry());
        }
        loop {
            if self.place.0.closed.is_cancelled() || self.lease_ended {
                return None;
            }
            // Read before the state, which is therefore at least as new.
            let complete = self.place.0.complete_until();
            // Marked as seen before the state is read, so that a later announcement wakes this loop
            // again.
            let announced = *self.announcements.borrow_and_update();
            if self.lease_checked != announced.internal_status {
                self.lease_checked = announced.internal_status;
                let access = self.access();
                if access.is_some_and(|access| access.ended.is_some()) {
                    self.lease_ended = true;
                    return self.status(access);
                }
            }
            // The first event comes before the first status, unless it takes longer than a
            // heartbeat.
            let last_status = self.sent_status.or(self.waiting.as_ref().map(|event| event.since));
            let status_due = last_status.is_none_or(|sent| {
                announced.status != sent.status
                    || announced.internal_status - sent.internal_status >= self.beats
            });
            // A slow client finds a newer version each time that it is ready. If frames always came
            // first, it would never get the status. So a status that is due follows each frame.
            let is_paced = Instant::now() < self.next_frame;
            let skips_frame = is_paced || (status_due && self.sent_frame_last);
            if self.waiting.is_none() && !skips_frame {
                let seen_version = self.seen_version.replace(announced.version);
                let skipped =
                    seen_version.map_or(0, |seen| announced.version.saturating_sub(seen + 1));
                let hub = &self.place.0;
                match hub.event(&self.selection, self.version, &self.budget) {
                    Next::Event(event, version) => {
                        self.complete = complete;
                        return Some(self.sent(event, version, skipped));
                    }
                    Next::Nothing => self.complete = complete,
                    Next::Later => {
                        let (hub, selection) = (Arc::clone(hub), self.selection.clone());
                        let event = hub.later_event(selection, self.version, self.budget.clone());
                        self.waiting = Some(Waiting {
                            event: AbortOnDropHandle::new(tokio::spawn(event)),
                            since: announced,
                            complete,
                            skipped,
                        });
                        continue;
                    }
                }
            }
            if status_due {
                self.sent_status = Some(announced);
                self.sent_frame_last = false;
                return self.status(self.access());
            }
            let is_behind = is_paced && self.seen_version != Some(announced.version);
            tokio::select! {
                ended = Waiting::event(&mut self.waiting), if self.waiting.is_some() => {
                    let (event, complete) = ended;
                    self.complete = complete;
                    if let Some((event, version, skipped)) = event {
                        return Some(self.sent(event, version, skipped));
                    }
                }
                changed = self.announcements.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.next_frame), if is_behind => {}
                () = end_of_stream(&mut self.draining, self.drain_position, &self.place.0.closed) => return None,
            }
        }
    }

    /// Records that a frame is sent.
    fn sent(&mut self, event: Bytes, version: Version, skipped: u64) -> Bytes {
        self.version = Some(version);
        self.sent_frame_last = true;
        if self.selection.payload() == Payload::Full {
            self.next_frame = Instant::now() + FULL_INTERVAL;
        }
        self.place.0.deliveries.count(skipped);
        event
    }

    /// A random delay for the next attempt: clients that lose their server together must not all
    /// reconnect at once.
    ///
    /// Only a line, which belongs to the block of the first event. Some clients take a block
    /// without data for an empty message.
    fn retry(&self) -> Bytes {
        let settings = &self.place.0.settings;
        let (min, max) = (settings.min_retry_delay, settings.max_retry_delay);
        let delay = rand::random_range(min.min(max)..=max);
        Bytes::from(format!("retry: {}\n", delay.as_millis()))
    }

    fn access(&self) -> Option<StreamAccess> {
        self.lease.as_ref()?.access()
    }

    fn status(&self, access: Option<StreamAccess>) -> Option<Bytes> {
        let age = self.complete.filter(|_| self.place.0.has_data()).map(|moment| moment.elapsed());
        let age_ms = age.and_then(|age| u64::try_from(age.as_millis()).ok());
        let status = Status { age_ms, access, ..self.place.0.status() };
        let data = serde_json::to_string(&status).ok()?;
        let message =
            Message { id: None, event: Some("status".into()), retry: None, data: data.into() };
        encode_event(Event::Message(message))
    }
}

/// Resolves when the stream should end: when the hub is closed, or at the stream's own moment of
/// the drain.
async fn end_of_stream(
    draining: &mut watch::Receiver<Option<Drain>>,
    drain_position: f64,
    closed: &CancellationToken,
) {
    let drained = async {
        if let Ok(drain) = draining.wait_for(Option::is_some).await.map(|drain| *drain)
            && let Some(Drain { begun, spread }) = drain
        {
            tokio::time::sleep_until(begun + spread.mul_f64(drain_position)).await;
        }
    };
    tokio::select! {
        () = closed.cancelled() => {}
        () = drained => {}
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};

    use actix_web::body::{BoxBody, MessageBody};
    use domain::{
        Bucket, BucketTime, Changes, Frame, FrameKind, Metric, Nonce, Statistics, Topic, TopicFrame,
    };

    use parking_lot::Mutex;
    use service_kit::settings::NonZeroDuration;

    use super::*;
    use crate::lease::Endless;
    use crate::settings::HubSettings;
    use crate::status::AccessEnd;

    /// The next event of a stream; `None` at its end.
    pub(crate) async fn next_event(body: Pin<&mut BoxBody>) -> Option<String> {
        let mut body = body;
        let event = poll_fn(|context| body.as_mut().poll_next(context)).await?;
        Some(String::from_utf8(event.unwrap().to_vec()).unwrap())
    }

    /// The access that a test sets.
    struct Ending(Arc<Mutex<StreamAccess>>);

    impl Lease for Ending {
        fn access(&self) -> Option<StreamAccess> {
            Some(*self.0.lock())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_says_how_long_it_may_go_on_and_ends_then() {
        let hub = Hub::new(HubSettings::default());
        hub.start(Statistics::new(Version { nonce: Nonce::new(1), tick: 0 }));
        let access = Arc::new(Mutex::new(StreamAccess { expires_in: 7, ended: None }));
        let topic: Topic = "transfers/year".parse().unwrap();
        let lease = Box::new(Ending(Arc::clone(&access)));
        let selection = Selection::one(topic);
        let response =
            stream_response(&hub, UnsentBytes::unlimited(), selection, None, None, lease);
        let mut body = pin!(response.unwrap().into_body());
        let mut next = async || next_event(body.as_mut()).await;
        let first_status = async {
            loop {
                let event = next().await.unwrap();
                if event.contains("event: status") {
                    return event;
                }
            }
        };
        assert!(first_status.await.contains("\"access\":{\"expires_in\":7}"));
        *access.lock() = StreamAccess { expires_in: 0, ended: Some(AccessEnd::Revoked) };
        let revoked = Instant::now();
        let last = next().await.unwrap();
        assert!(last.contains("\"access\":{\"expires_in\":0,\"ended\":\"revoked\"}"), "{last}");
        assert_eq!(next().await, None);
        assert!(revoked.elapsed() <= hub.settings.internal_heartbeat.get());
    }

    #[tokio::test]
    async fn a_client_that_always_finds_a_newer_version_gets_the_status_too() {
        let beat = NonZeroDuration::from_millis(10);
        let hub = Hub::new(HubSettings {
            pace: Duration::ZERO,
            internal_heartbeat: beat,
            ..HubSettings::default()
        });
        let version = |tick| Version { nonce: Nonce::new(1), tick };
        hub.start(Statistics::new(version(0)));
        let mut body = pin!(internal_stream_response(&hub, None).unwrap().into_body());
        let started = Instant::now();
        let mut statuses = 0;
        let topic: Topic = "transfers/year".parse().unwrap();
        for tick in 1_u32.. {
            let buckets =
                vec![Bucket { time: topic.unit.truncate(BucketTime::MIN), count: tick.into() }];
            let topics = vec![TopicFrame { topic, window: topic.unit.window(), buckets }];
            let version = version(tick.into());
            hub.apply(&Frame { kind: FrameKind::Patch, version, topics }).unwrap();
            hub.mark_live();
            let event = next_event(body.as_mut()).await.unwrap();
            statuses += usize::from(event.contains("event: status"));
            if statuses == 3 {
                break;
            }
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "{statuses} statuses in {tick} events"
            );
            // Lets the heartbeat task run.
            tokio::task::yield_now().await;
        }
    }

    /// The clock is paused: it moves on only when everything waits.
    #[tokio::test(start_paused = true)]
    async fn a_stream_of_whole_windows_gets_one_a_second_and_the_newest_state_at_last() {
        let hub = Hub::new(HubSettings::default());
        hub.start(Statistics::new(Version { nonce: Nonce::new(1), tick: 0 }));
        let topic: Topic = "transfers/year".parse().unwrap();
        let selection = Selection::one(topic).with_payload(Payload::Full);
        let mut body = pin!(
            stream_response(
                &hub,
                UnsentBytes::unlimited(),
                selection,
                None,
                None,
                Box::new(Endless)
            )
            .unwrap()
            .into_body()
        );
        let started = Instant::now();
        let publish = async {
            for _ in 0..100 {
                let change = (Metric::Transfers, BucketTime::MIN, 1);
                hub.advance(&Changes::from_iter([change])).unwrap();
                tokio::time::sleep(Duration::from_millis(45)).await;
            }
        };
        let read = async {
            let mut frames = Vec::new();
            loop {
                let event = next_event(body.as_mut()).await.unwrap();
                if event.starts_with("id:") || event.contains("\nid:") {
                    frames.push(started.elapsed());
                }
                if event.contains("\"count\":100}") {
                    return frames;
                }
            }
        };
        let (frames, ()) = futures_util::join!(read, publish);
        assert_eq!(frames.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }
}
