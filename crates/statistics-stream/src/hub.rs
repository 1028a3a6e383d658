//! The state that subscribers follow, and the pace that keeps them in step.
//!
//! A hub has two states. Every change goes into the working state at once. Subscribers see the
//! published state: an announcement brings it up to the working state, and it is constant in
//! between. The first change is announced at once, later ones at most every [`HubSettings::pace`].
//! Clients that were in step at one announcement are in step at the next, so one encoded event
//! serves them all.
//!
//! Invariant: a patch waits for no other event. Nothing is encoded under the lock of the state.
//! Large events, such as whole windows, are encoded one after the other on a thread of their own,
//! so that they take at most one core, and no time of the threads that serve clients. A large event
//! has room in the budget of unsent bytes before it is encoded, and keeps it until its last
//! subscriber has received it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use domain::{ApplyError, Changes, Frame, Statistics, Topic, TopicFrame, Version};
use parking_lot::RwLock;
use service_kit::unsent::{Reservation, UnsentBytes};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::deliveries::Deliveries;
use crate::encoder::{EventParts, Events, Found};
use crate::heartbeat;
use crate::liveness::{Audience, Beat, Liveness};
use crate::selection::Selection;
use crate::settings::HubSettings;
use crate::status::{Status, UpstreamStatus};

/// The maximum number of buckets of an event that is encoded where its subscriber runs. It takes a
/// fraction of a millisecond, as nearly every patch does.
const SMALL_BUCKETS: usize = 1_000;

/// Counters by which a subscriber detects a new version or status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Announcement {
    /// Increases with each published version.
    pub(crate) version: u64,
    /// Increases with each status that every subscriber gets.
    pub(crate) status: u64,
    /// Increases with each status that gateways get, and clients that asked for a short heartbeat.
    pub(crate) internal_status: u64,
}

/// The period over which the streams of a stopping hub end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) begun: Instant,
    pub(crate) spread: Duration,
}

/// What a subscriber gets.
#[derive(Debug)]
pub(crate) enum Next {
    /// An event, and the version that it reaches.
    Event(Bytes, Version),
    /// It has the published version.
    Nothing,
    /// A large event, which must wait: see [`Hub::later_event`].
    Later,
}

/// The state of all topics, and its subscribers.
#[derive(Debug)]
pub struct Hub {
    pub(crate) settings: HubSettings,
    pub(crate) deliveries: Arc<Deliveries>,
    state: RwLock<State>,
    liveness: RwLock<Liveness>,
    /// Wakes the heartbeat to gateways when the upstream says how it is.
    pub(crate) upstream_signs: Arc<Notify>,
    pub(crate) announced: watch::Sender<Announcement>,
    subscribers: AtomicUsize,
    /// The turn of one large event to be encoded.
    large_events: Semaphore,
    pub(crate) drain: watch::Sender<Option<Drain>>,
    pub(crate) closed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    working: Option<Statistics>,
    published: Option<Statistics>,
    /// Events of the published version.
    events: Arc<Events>,
    announced: Option<Instant>,
    /// Whether an announcement is scheduled.
    pending: bool,
}

impl Hub {
    /// A hub without counts, which is stale until [`Hub::mark_live`]. Must be called within a tokio
    /// runtime. Its heartbeats run there until the hub is dropped or [closed](Hub::close).
    pub fn new(settings: HubSettings) -> Arc<Self> {
        Self::with_deliveries(settings, Arc::default())
    }

    /// As [`Hub::new`], but adds to existing counters.
    pub fn with_deliveries(settings: HubSettings, deliveries: Arc<Deliveries>) -> Arc<Self> {
        let hub = Arc::new(Self {
            settings,
            deliveries,
            state: RwLock::default(),
            liveness: RwLock::new(Liveness::new()),
            upstream_signs: Arc::default(),
            announced: watch::Sender::new(Announcement::default()),
            subscribers: AtomicUsize::new(0),
            large_events: Semaphore::new(1),
            drain: watch::Sender::new(None),
            closed: CancellationToken::new(),
        });
        tokio::spawn(heartbeat::to_clients(Arc::downgrade(&hub), hub.closed.clone()));
        tokio::spawn(heartbeat::to_gateways(Arc::downgrade(&hub), hub.closed.clone()));
        hub
    }

    /// Begins a publisher's new term with this state.
    pub fn start(self: &Arc<Self>, statistics: Statistics) {
        self.state.write().working = Some(statistics);
        self.schedule_announcement();
    }

    /// Adds changes to the counts, and returns the version that includes them. `None` before
    /// [`Hub::start`].
    pub fn advance(self: &Arc<Self>, changes: &Changes) -> Option<Version> {
        let version = {
            let mut state = self.state.write();
            let working = state.working.as_mut()?;
            working.advance(changes);
            working.version()
        };
        self.schedule_announcement();
        Some(version)
    }

    /// Applies a frame of the upstream.
    ///
    /// # Errors
    /// [`ApplyError`] if the frame does not fit. The state is then unchanged.
    pub fn apply(self: &Arc<Self>, frame: &Frame) -> Result<(), ApplyError> {
        {
            let mut state = self.state.write();
            match &mut state.working {
                Some(working) => working.apply(frame)?,
                None => {
                    let mut working = Statistics::new(frame.version);
                    working.apply(frame)?;
                    state.working = Some(working);
                }
            }
        }
        self.schedule_announcement();
        Ok(())
    }

    /// Calls `look` with the working state; `None` if there is none yet.
    pub fn with_state<T>(&self, look: impl FnOnce(&Statistics) -> T) -> Option<T> {
        self.state.read().working.as_ref().map(look)
    }

    /// Records that the upstream is alive now, and has sent all of its counts.
    pub fn mark_live(&self) {
        self.mark_live_for(Duration::ZERO);
    }

    /// Records that the upstream was alive at `moment`: the counts that the hub has by now are
    /// complete until then.
    pub fn mark_live_at(&self, moment: Instant) {
        self.mark_live_since(moment, Duration::ZERO);
    }

    /// Records that the upstream is alive now, and that the counts of it that the hub has by now
    /// have this age.
    pub fn mark_live_for(&self, age: Duration) {
        self.mark_live_since(Instant::now(), age);
    }

    fn mark_live_since(&self, moment: Instant, age: Duration) {
        // An announcement that comes in between publishes the counts as older than they are, until
        // the next sign of life. No change comes in between: this and the changes have one caller.
        let is_published = !self.state.read().pending;
        let changed = self.liveness.write().mark_live(moment, age, is_published);
        self.announce_status_if(changed);
        self.upstream_signs.notify_waiters();
    }

    /// The published counts have every event that was committed before. `None` before the first.
    pub(crate) fn complete_until(&self) -> Option<Instant> {
        self.liveness.read().published()
    }

    /// How old the published counts are; `None` before the first.
    pub fn age(&self) -> Option<Duration> {
        let has_data = self.has_data();
        self.complete_until().filter(|_| has_data).map(|moment| moment.elapsed())
    }

    /// Records the age of the counts that the upstream reports; `None` if it reports none.
    pub(crate) fn set_reported_age(&self, age: Option<Duration>) {
        self.liveness.write().set_reported_age(age);
    }

    /// How old the counts were when the upstream sent its last status; `None` before the first.
    pub fn upstream_age(&self) -> Option<Duration> {
        self.liveness.read().reported_age()
    }

    /// Whether the upstream was alive within the last `time`.
    pub fn was_live_within(&self, time: Duration) -> bool {
        self.liveness.read().was_live_within(time)
    }

    /// Records that the upstream is lost. Subscribers keep their counts.
    pub fn mark_stale(&self) {
        let changed = self.liveness.write().mark_stale();
        self.announce_status_if(changed);
    }

    /// Records that the upstream reports itself as stale for `age`. Subscribers keep their counts.
    pub fn mark_stale_for(&self, age: Duration) {
        let changed = self.liveness.write().mark_stale_for(age);
        self.announce_status_if(changed);
        self.upstream_signs.notify_waiters();
    }

    /// Makes each stream check its [`Lease`](crate::Lease) now.
    pub fn check_leases(&self) {
        self.announce_status(&[Audience::Gateways]);
    }

    /// Ends all streams.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Ends all streams, each at a random moment within `spread`, so that clients do not all
    /// reconnect at once.
    pub async fn drain(&self, spread: Duration) {
        self.drain.send_replace(Some(Drain { begun: Instant::now(), spread }));
        tokio::time::sleep(spread).await;
        self.close();
    }

    /// Whether the streams are ending.
    pub fn is_draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Whether there are counts to show.
    pub fn has_data(&self) -> bool {
        self.state.read().published.is_some()
    }

    /// Whether the counts follow the database.
    pub fn upstream(&self) -> UpstreamStatus {
        self.liveness.read().upstream()
    }

    /// The number of subscribers.
    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// Counters of the frames that subscribers got.
    pub fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// The time since the last version was published; `None` before the first.
    pub fn version_age(&self) -> Option<Duration> {
        self.state.read().announced.map(|announced| announced.elapsed())
    }

    /// The published windows of a selection as JSON; `None` before there are any.
    pub fn snapshot(&self, selection: &Selection) -> Option<String> {
        let topics = {
            let state = self.state.read();
            state.events.snapshot(state.published.as_ref()?, selection)
        };
        Some(topics.json())
    }

    /// The published windows of a selection; `None` before there are any.
    pub fn windows(&self, selection: &Selection) -> Option<Vec<TopicFrame>> {
        let state = self.state.read();
        let published = state.published.as_ref()?;
        let window = |&topic| published.snapshot(topic, selection.last());
        Some(selection.topics().iter().map(window).collect())
    }

    /// What brings a subscriber from version `from` to the published one.
    pub(crate) fn event(
        &self,
        selection: &Selection,
        from: Option<Version>,
        budget: &UnsentBytes,
    ) -> Next {
        let event = match self.find(selection, from) {
            None => return Next::Nothing,
            Some(Found::Event(event, version)) => event.share(budget).map(|event| (event, version)),
            Some(Found::Parts(parts)) if parts.buckets() <= SMALL_BUCKETS => {
                let reserved = budget.reserve(parts.max_bytes());
                reserved.and_then(|reservation| encode(parts, reservation))
            }
            Some(Found::Parts(_)) => None,
        };
        event.map_or(Next::Later, |(event, version)| Next::Event(event, version))
    }

    /// As [`Hub::event`], for [`Next::Later`]: waits for room in the budget, and then for the turn
    /// of this event. `None` if there is nothing to send any more.
    ///
    /// Meanwhile it holds no part of the state. At its turn, there may be a newer version, or
    /// another subscriber has had the event encoded.
    pub(crate) async fn later_event(
        self: Arc<Self>,
        selection: Selection,
        from: Option<Version>,
        budget: UnsentBytes,
    ) -> Option<(Bytes, Version)> {
        loop {
            let bytes = match self.find(&selection, from)? {
                Found::Event(event, version) => match event.share(&budget) {
                    Some(event) => return Some((event, version)),
                    None => event.len(),
                },
                Found::Parts(parts) => parts.max_bytes(),
            };
            // Rounded up, because changes grow while they wait. It waits again only if they have
            // doubled, and so a few times at most.
            let room = budget.wait(bytes.next_power_of_two()).await;
            // Nothing waits for room while it has the turn. The semaphore is never closed.
            let _turn = self.large_events.acquire().await.ok()?;
            match self.find(&selection, from)? {
                Found::Event(event, version) if room.fits(event.len()) => {
                    return Some((event.share_within(room), version));
                }
                Found::Parts(parts) if room.fits(parts.max_bytes()) => {
                    // Fails only when the runtime ends.
                    return tokio::task::spawn_blocking(|| encode(parts, room)).await.ok()?;
                }
                Found::Event(..) | Found::Parts(_) => {}
            }
        }
    }

    fn find(&self, selection: &Selection, from: Option<Version>) -> Option<Found> {
        let state = self.state.read();
        state.events.find(state.published.as_ref()?, selection, from)
    }

    pub(crate) fn status(&self) -> Status {
        self.liveness.read().status()
    }

    /// Reserves a subscriber's place. `false` if all are taken.
    pub(crate) fn admit(&self) -> bool {
        let below = |count| (count < self.settings.max_subscribers).then_some(count + 1);
        self.subscribers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).is_ok()
    }

    pub(crate) fn dismiss(&self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    fn announce_status_if(&self, changed: bool) {
        if changed {
            self.announce_status(&[Audience::Clients, Audience::Gateways]);
        }
    }

    fn announce_status(&self, audiences: &[Audience]) {
        self.announced.send_modify(|announced| {
            announced.status += u64::from(audiences.contains(&Audience::Clients));
            announced.internal_status += u64::from(audiences.contains(&Audience::Gateways));
        });
    }

    /// Announces the status at a heartbeat. Returns whether there was something to announce.
    pub(crate) fn beat(&self, audience: Audience) -> bool {
        let beat = self.liveness.write().beat(audience);
        match beat {
            Beat::Skip => return false,
            Beat::Repeat => self.announce_status(&[audience]),
            Beat::Lost => self.announce_status(&[Audience::Clients, Audience::Gateways]),
        }
        true
    }

    /// Announces the working state now, or as soon as the pace allows.
    fn schedule_announcement(self: &Arc<Self>) {
        let wait = {
            let mut state = self.state.write();
            if state.pending {
                return;
            }
            let elapsed = state.announced.map(|last| last.elapsed());
            let wait = elapsed
                .map_or(Duration::ZERO, |elapsed| self.settings.pace.saturating_sub(elapsed));
            state.pending = !wait.is_zero();
            wait
        };
        if wait.is_zero() {
            self.announce();
            return;
        }
        let hub = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(hub) = hub.upgrade() {
                hub.announce();
            }
        });
    }

    fn announce(&self) {
        let mut state = self.state.write();
        let State { working, published, events, announced, pending } = &mut *state;
        *pending = false;
        *announced = Some(Instant::now());
        let Some(working) = working else { return };
        match published {
            None => *published = Some(working.clone()),
            Some(published) => {
                let topics: Vec<_> = Topic::all().collect();
                let Some(frame) = working.frame_since(Some(published.version()), &topics) else {
                    self.liveness.write().publish();
                    return;
                };
                if published.apply(&frame).is_err() {
                    // Cannot happen: the working state never goes back, so its frames always fit. A
                    // full copy is right in any case.
                    *published = working.clone();
                }
            }
        }
        *events = Arc::default();
        self.liveness.write().publish();
        drop(state);
        self.announced.send_modify(|announced| announced.version += 1);
    }
}

fn encode(parts: EventParts, room: Reservation) -> Option<(Bytes, Version)> {
    let (event, version) = parts.encode()?;
    Some((event.share_within(room), version))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::pin::Pin;

    use actix_web::body::BoxBody;
    use domain::{BucketTime, Metric, Nonce};
    use futures_util::FutureExt;

    use super::*;
    use crate::lease::Endless;
    use crate::selection::Payload;
    use crate::subscriber::tests::next_event;
    use crate::subscriber::{internal_stream_response, stream_response};

    async fn next(body: &mut Pin<Box<BoxBody>>) -> String {
        next_event(body.as_mut()).await.unwrap()
    }

    fn changes(seconds: std::ops::Range<i64>) -> Changes {
        let time = |second| BucketTime::from_unix_milliseconds(second * 1_000).unwrap();
        seconds.map(|second| (Metric::Transfers, time(second), 1)).collect()
    }

    #[tokio::test]
    async fn a_patch_does_not_wait_while_whole_windows_are_encoded() {
        let hub = Hub::new(HubSettings { pace: Duration::ZERO, ..HubSettings::default() });
        hub.start(Statistics::new(Version { nonce: Nonce::new(1), tick: 0 }));
        let first = hub.advance(&changes(0..3_000)).unwrap();
        let seconds: Topic = "transfers/second".parse().unwrap();
        let follow = |selection: Selection| {
            Box::pin(
                stream_response(
                    &hub,
                    UnsentBytes::unlimited(),
                    selection,
                    None,
                    None,
                    Box::new(Endless),
                )
                .unwrap()
                .into_body(),
            )
        };
        let small = NonZeroUsize::new(10).unwrap();
        let mut clients = Vec::new();
        for _ in 0..1_000 {
            let mut client = follow(Selection::one(seconds).narrowed(small));
            let events =
                [next(&mut client).await, next(&mut client).await, next(&mut client).await];
            assert!(events[1].contains("event: snapshot"), "{events:?}");
            clients.push(client);
        }
        // This turn is that of another large event, which is being encoded.
        let turn = hub.large_events.acquire().await.unwrap();
        let mut whole = follow(Selection::one(seconds).with_payload(Payload::Full));
        assert!(next(&mut whole).await.starts_with("retry: "));
        assert_eq!(next(&mut whole).now_or_never(), None);
        // These parts have been copied, and are not encoded yet.
        let Some(Found::Parts(parts)) = hub.find(&Selection::one(seconds), None) else {
            panic!("this snapshot was not requested before");
        };
        let second = hub.advance(&changes(2_990..3_001)).unwrap();
        for client in &mut clients {
            let event = next(client).now_or_never().expect("a patch must not wait");
            assert!(
                event.contains("event: patch") && event.contains(&second.to_string()),
                "{event}"
            );
        }
        assert_eq!(parts.encode().unwrap().1, first);
        drop(turn);
        // It waited, and so it gets the newest state.
        let mut event = next(&mut whole).await;
        while event.contains("event: status") {
            event = next(&mut whole).await;
        }
        assert!(event.contains(&second.to_string()), "{event}");
        assert!(event.contains("\"time\":\"1970-01-01T00:50:00Z\""), "{event}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_for_its_turn_gets_statuses_and_can_end() {
        let hub = Hub::new(HubSettings::default());
        hub.start(Statistics::new(Version { nonce: Nonce::new(1), tick: 0 }));
        hub.advance(&changes(0..3_000)).unwrap();
        tokio::time::sleep(hub.settings.pace).await;
        let follow = || Box::pin(internal_stream_response(&hub, None).unwrap().into_body());
        let turn = hub.large_events.acquire().await.unwrap();
        let [mut first, mut second, mut third] = [follow(), follow(), follow()];
        for client in [&mut first, &mut second, &mut third] {
            assert!(next(client).await.starts_with("retry: "));
            // The clock moves on only when everything waits.
            assert!(next(client).await.contains("event: status"));
        }
        drop(turn);
        // The second one does not read meanwhile, but had its turn before.
        for client in [&mut first, &mut third] {
            while !next(client).await.contains("event: snapshot") {}
        }
        let _turn = hub.large_events.acquire().await.unwrap();
        // This version has not been encoded yet.
        hub.advance(&changes(3_000..6_000)).unwrap();
        tokio::time::sleep(hub.settings.pace).await;
        let mut late = follow();
        assert!(next(&mut late).await.starts_with("retry: "));
        assert!(next(&mut late).await.contains("event: status"));
        hub.close();
        assert_eq!(next_event(late.as_mut()).await, None);
    }
}
