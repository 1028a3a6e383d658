//! The life of one subscriber.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use bytes::Bytes;
use domain::Version;
use futures_util::Stream;
use futures_util::stream::unfold;
use russe::{Event, Message};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::frames::encoded;
use crate::hub::{Announcement, Hub};
use crate::selection::Selection;

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// There are as many subscribers as there may be.
    #[error("as many clients as this server takes are connected; try again, or another one")]
    Full,
    /// The hub has ended its streams.
    #[error("this server is stopping; try again, or another one")]
    Ended,
}

/// Streams a selection: from the version of `last_event_id`, where that is possible, else from snapshots. A client
/// that must notice soon when the stream falls silent asks for a `heartbeat` of its own; it is told with every so
/// many of the beats for gateways, so that no client costs a timer.
///
/// # Errors
/// [`StreamError`] where no more subscribers are taken.
pub fn stream_response(
    hub: &Arc<Hub>,
    selection: Selection,
    last_event_id: Option<Version>,
    heartbeat: Option<Duration>,
) -> Result<HttpResponse, StreamError> {
    let beats = |heartbeat: Duration| {
        let beat = hub.settings.internal_heartbeat.as_millis().max(1);
        u64::try_from(heartbeat.as_millis() / beat).unwrap_or(u64::MAX).max(1)
    };
    respond(hub, selection, last_event_id, heartbeat.map_or(u64::MAX, beats))
}

/// Streams all topics to another gateway, with a heartbeat quick enough for it to notice a frozen upstream.
///
/// # Errors
/// [`StreamError`] where no more subscribers are taken.
pub fn internal_stream_response(
    hub: &Arc<Hub>,
    last_event_id: Option<Version>,
) -> Result<HttpResponse, StreamError> {
    respond(hub, Selection::all(), last_event_id, 1)
}

fn respond(
    hub: &Arc<Hub>,
    selection: Selection,
    last_event_id: Option<Version>,
    beats: u64,
) -> Result<HttpResponse, StreamError> {
    if hub.ended().is_cancelled() {
        return Err(StreamError::Ended);
    }
    if !hub.admit() {
        return Err(StreamError::Full);
    }
    let place = Place(Arc::clone(hub));
    let subscriber = Subscriber {
        announcements: hub.announcements(),
        draining: hub.draining(),
        leaves: rand::random(),
        beats,
        place,
        selection,
        version: last_event_id,
        looked_at: None,
        told: None,
        framed: false,
        opened: false,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        // Proxies of the nginx family would hold events back otherwise.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .streaming(subscriber.events()))
}

/// A subscriber's place in the hub, given back when its connection ends in whatever way.
struct Place(Arc<Hub>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}

struct Subscriber {
    place: Place,
    announcements: watch::Receiver<Announcement>,
    draining: watch::Receiver<Option<(Instant, Duration)>>,
    /// When in the time to drain it ends, from 0 to 1.
    leaves: f64,
    /// After how many beats for gateways it is told the status again, at the latest.
    beats: u64,
    selection: Selection,
    /// The version that the client has.
    version: Option<Version>,
    /// The number of the announcement that it looked at last.
    looked_at: Option<u64>,
    /// What was announced when it was told the status last.
    told: Option<Announcement>,
    /// Whether the last event was a frame.
    framed: bool,
    opened: bool,
}

impl Subscriber {
    fn events(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
        unfold(self, |mut subscriber| async move {
            // The bytes are shared with all who are sent the same, and handed over in pieces by `service_kit::server`.
            let event = subscriber.next().await?;
            Some((Ok(event), subscriber))
        })
    }

    /// The next event, once the client is ready for it. Nothing is prepared before: what changes meanwhile is
    /// conflated into the one frame that this then makes.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.opened {
            self.opened = true;
            return self.retry();
        }
        loop {
            if self.place.0.ended().is_cancelled() {
                return None;
            }
            // Marks what is announced as seen before looking at it, so that what is announced later wakes again.
            let announced = *self.announcements.borrow_and_update();
            let due = self.told.is_none_or(|told| {
                announced.status != told.status
                    || announced.internal_status - told.internal_status >= self.beats
            });
            // A slow client finds a newer version each time that it is ready for one. If frames always came first, it would
            // never be told that the numbers are live, or stale.
            if !(due && self.framed) {
                let looked_at = self.looked_at.replace(announced.version);
                if let Some((event, version)) = self.place.0.event(&self.selection, self.version) {
                    (self.version, self.framed) = (Some(version), true);
                    let skipped = looked_at.map_or(0, |last| announced.version.saturating_sub(last + 1));
                    self.place.0.deliveries().count(skipped);
                    return Some(event);
                }
            }
            if due {
                (self.told, self.framed) = (Some(announced), false);
                return self.status();
            }
            tokio::select! {
                changed = self.announcements.changed() => changed.ok()?,
                () = end(&mut self.draining, self.leaves, self.place.0.ended()) => return None,
            }
        }
    }

    /// Clients that lose their server at the same moment must not all come back at the same moment.
    fn retry(&self) -> Option<Bytes> {
        let settings = &self.place.0.settings;
        encoded(Event::Retry(rand::random_range(settings.retry_min..=settings.retry_max)))
    }

    fn status(&self) -> Option<Bytes> {
        let data = serde_json::to_string(&self.place.0.status()).ok()?;
        let message = Message { id: None, event: Some("status".into()), retry: None, data: data.into() };
        encoded(Event::Message(message))
    }
}

/// Resolves when the stream should end: at once, or at its own moment of the time to drain.
async fn end(
    draining: &mut watch::Receiver<Option<(Instant, Duration)>>,
    leaves: f64,
    ended: &CancellationToken,
) {
    let leave = async {
        if let Ok(drain) = draining.wait_for(Option::is_some).await.map(|drain| *drain)
            && let Some((begun, spread)) = drain
        {
            tokio::time::sleep_until(begun + spread.mul_f64(leaves)).await;
        }
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = leave => {}
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use actix_web::body::MessageBody;
    use domain::{Bucket, BucketTime, Frame, FrameKind, Nonce, Statistics, Topic, TopicFrame};

    use super::*;
    use crate::settings::HubSettings;

    #[tokio::test]
    async fn whoever_always_finds_a_newer_version_is_told_the_status_as_well() {
        let beat = Duration::from_millis(10);
        let hub = Hub::new(HubSettings {
            pace: Duration::ZERO,
            internal_heartbeat: beat,
            ..HubSettings::default()
        });
        let version = |tick| Version { nonce: Nonce::new(1), tick };
        hub.start(Statistics::new(version(0)));
        let mut body = pin!(internal_stream_response(&hub, None).unwrap().into_body());
        let (started, mut told) = (Instant::now(), 0);
        let (topic, time) = ("transfers/year".parse::<Topic>().unwrap(), BucketTime::MIN);
        for tick in 1_u32.. {
            let buckets = vec![Bucket { time: topic.unit.truncate(time), count: tick.into() }];
            let topics = vec![TopicFrame { topic, window: topic.unit.window(), buckets }];
            let version = version(tick.into());
            hub.apply(&Frame { kind: FrameKind::Patch, version, topics }).unwrap();
            hub.live();
            let event = poll_fn(|context| body.as_mut().poll_next(context)).await.unwrap().unwrap();
            told += usize::from(String::from_utf8_lossy(&event).contains("event: status"));
            if told == 3 {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "{told} times in {tick} events");
            // So that the hub beats.
            tokio::task::yield_now().await;
        }
    }
}
