//! The state that subscribers follow, and the clock that keeps them in step.
//!
//! There are two states. The working one takes every change at once. The published one is what subscribers see:
//! it follows the working one at announcements, the first at once and then at most one every
//! [`HubSettings::pace`], and is constant in between. So clients that were in step at one announcement are in
//! step at the next, and one event serves them all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use domain::{ApplyError, Changes, Frame, Statistics, Topic, TopicFrame, Version};
use parking_lot::RwLock;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::frames::Frames;
use crate::selection::Selection;
use crate::settings::{Deliveries, HubSettings};
use crate::status::{Status, Upstream};

/// After so many beats for gateways in which its upstream was not seen alive, a hub says that it is stale. Without
/// that, a publisher whose database hangs would tell whoever connects that it is live.
const MISSED_BEATS: u32 = 2;

/// Which of its numbers a subscriber has not seen yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Announcement {
    /// Grows with each published version.
    pub(crate) version: u64,
    /// Grows with each status to tell everybody.
    pub(crate) status: u64,
    /// Grows with each status to tell gateways, and clients that asked for a quicker heartbeat.
    pub(crate) internal_status: u64,
}

/// Who follows a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Pages and programs, and gateways beside them.
    Clients,
    /// Other gateways, which must notice soon when it falls silent.
    Gateways,
}

/// The state of all topics, and everybody who follows it.
#[derive(Debug)]
pub struct Hub {
    pub(crate) settings: HubSettings,
    state: RwLock<State>,
    announced: watch::Sender<Announcement>,
    subscribers: AtomicUsize,
    draining: watch::Sender<Option<(Instant, Duration)>>,
    ended: CancellationToken,
}

#[derive(Debug)]
struct State {
    working: Option<Statistics>,
    published: Option<Statistics>,
    frames: Frames,
    announced: Option<Instant>,
    /// Whether an announcement waits for its time.
    pending: bool,
    upstream: Upstream,
    since: OffsetDateTime,
    /// Whether the upstream was seen alive since the last heartbeat to clients, and to gateways.
    confirmed: [bool; 2],
    /// When it was alive, as far as is known.
    alive: Option<Instant>,
    /// For how many beats for gateways it was not.
    missed: u32,
}

impl Hub {
    /// A hub without data, whose upstream is stale until [`Hub::live`]. Must be called within a tokio runtime,
    /// where its heartbeat lives until the hub is dropped or [ended](Hub::end).
    #[must_use]
    pub fn new(settings: HubSettings) -> Arc<Self> {
        let state = State {
            working: None,
            published: None,
            frames: Frames::default(),
            announced: None,
            pending: false,
            upstream: Upstream::Stale,
            since: OffsetDateTime::now_utc(),
            confirmed: [false; 2],
            alive: None,
            missed: 0,
        };
        let hub = Arc::new(Self {
            settings,
            state: RwLock::new(state),
            announced: watch::Sender::new(Announcement::default()),
            subscribers: AtomicUsize::new(0),
            draining: watch::Sender::new(None),
            ended: CancellationToken::new(),
        });
        for audience in [Audience::Clients, Audience::Gateways] {
            tokio::spawn(keep_beating(Arc::downgrade(&hub), audience, hub.ended.clone()));
        }
        hub
    }

    /// Begins with the state of a publisher's new term.
    pub fn start(self: &Arc<Self>, statistics: Statistics) {
        self.state.write().working = Some(statistics);
        self.changed();
    }

    /// Counts changes, and returns the version that has them; `None` before [`Hub::start`].
    pub fn advance(self: &Arc<Self>, changes: &Changes) -> Option<Version> {
        let version = {
            let mut state = self.state.write();
            let working = state.working.as_mut()?;
            working.advance(changes);
            working.version()
        };
        self.changed();
        Some(version)
    }

    /// Takes over a frame of the upstream.
    ///
    /// # Errors
    /// [`ApplyError`] where it does not fit; nothing was then changed.
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
        self.changed();
        Ok(())
    }

    /// The newest state, if there is one.
    pub fn read<T>(&self, look: impl FnOnce(&Statistics) -> T) -> Option<T> {
        self.state.read().working.as_ref().map(look)
    }

    /// The upstream was seen alive just now.
    pub fn live(&self) {
        self.live_at(Instant::now());
    }

    /// The upstream was alive at some moment, of which word has come just now.
    pub fn live_at(&self, moment: Instant) {
        self.state.write().alive = Some(moment);
        self.upstream(Upstream::Live);
    }

    /// Whether the upstream was alive so short a time ago.
    #[must_use]
    pub fn was_live_within(&self, time: Duration) -> bool {
        self.state.read().alive.is_some_and(|moment| moment.elapsed() < time)
    }

    /// The upstream is lost, or says of itself that it is stale. Subscribers keep their numbers.
    pub fn stale(&self) {
        self.upstream(Upstream::Stale);
    }

    /// Ends all streams.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Ends all streams, each at a random moment within `spread`, so that not all clients reconnect at once.
    pub async fn drain(&self, spread: Duration) {
        self.draining.send_replace(Some((Instant::now(), spread)));
        tokio::time::sleep(spread).await;
        self.end();
    }

    /// Whether there are numbers, and whether they follow the database.
    #[must_use]
    pub fn condition(&self) -> (bool, Upstream) {
        let state = self.state.read();
        (state.published.is_some(), state.upstream)
    }

    /// How many subscribers there are.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// What subscribers got.
    #[must_use]
    pub fn deliveries(&self) -> &Deliveries {
        &self.settings.deliveries
    }

    /// How long ago the published version was published; `None` before there is any.
    #[must_use]
    pub fn version_age(&self) -> Option<Duration> {
        self.state.read().announced.map(|announced| announced.elapsed())
    }

    /// The published state of a selection as JSON; `None` before there is any.
    #[must_use]
    pub fn snapshot(&self, selection: &Selection) -> Option<String> {
        let mut state = self.state.write();
        let State { published, frames, .. } = &mut *state;
        published.as_ref().map(|published| frames.snapshot(published, selection))
    }

    /// The published windows of a selection; `None` before there are any.
    #[must_use]
    pub fn windows(&self, selection: &Selection) -> Option<Vec<TopicFrame>> {
        let state = self.state.read();
        let published = state.published.as_ref()?;
        let window = |&topic| published.snapshot(topic, selection.last());
        Some(selection.topics().iter().map(window).collect())
    }

    pub(crate) fn announcements(&self) -> watch::Receiver<Announcement> {
        self.announced.subscribe()
    }

    pub(crate) fn draining(&self) -> watch::Receiver<Option<(Instant, Duration)>> {
        self.draining.subscribe()
    }

    pub(crate) const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// The event from `from` to the published version, where there is one, and that version.
    pub(crate) fn event(&self, selection: &Selection, from: Option<Version>) -> Option<(Bytes, Version)> {
        let mut state = self.state.write();
        let State { published, frames, .. } = &mut *state;
        let published = published.as_ref()?;
        Some((frames.event(published, selection, from)?, published.version()))
    }

    pub(crate) fn status(&self) -> Status {
        let state = self.state.read();
        let text = |time: OffsetDateTime| {
            // Whole milliseconds: what is finer says nothing here.
            let whole = time.replace_millisecond(time.millisecond()).unwrap_or(time);
            whole.format(&Rfc3339).unwrap_or_default()
        };
        Status { upstream: state.upstream, since: text(state.since), now: text(OffsetDateTime::now_utc()) }
    }

    /// Takes a subscriber's place, where there is one.
    pub(crate) fn admit(&self) -> bool {
        let below = |count| (count < self.settings.max_subscribers).then_some(count + 1);
        self.subscribers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).is_ok()
    }

    pub(crate) fn dismiss(&self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    fn upstream(&self, upstream: Upstream) {
        let mut state = self.state.write();
        if upstream == Upstream::Live {
            (state.confirmed, state.missed) = ([true; 2], 0);
        }
        if state.upstream != upstream {
            (state.upstream, state.since) = (upstream, OffsetDateTime::now_utc());
            drop(state);
            self.announced.send_modify(|announced| {
                announced.status += 1;
                announced.internal_status += 1;
            });
        }
    }

    /// Tells the status again: a lost upstream always, a live one only where it was seen alive since. One that was not
    /// for too long is lost.
    fn beat(&self, audience: Audience) {
        let mut state = self.state.write();
        let confirmed = std::mem::take(&mut state.confirmed[audience as usize]);
        let told = state.upstream == Upstream::Stale || confirmed;
        if !told && audience == Audience::Gateways {
            state.missed += 1;
        }
        let lost = !told && state.missed >= MISSED_BEATS;
        if lost {
            // Under the same lock: whoever sees it alive from here on says so after this.
            (state.upstream, state.since) = (Upstream::Stale, OffsetDateTime::now_utc());
        }
        drop(state);
        if told || lost {
            self.announced.send_modify(|announced| {
                announced.status += u64::from(lost || audience == Audience::Clients);
                announced.internal_status += u64::from(lost || audience == Audience::Gateways);
            });
        }
    }

    /// The working state has changed: announces it now, or when it is time.
    fn changed(self: &Arc<Self>) {
        let wait = {
            let mut state = self.state.write();
            if state.pending {
                return;
            }
            let wait = state
                .announced
                .map_or(Duration::ZERO, |last| self.settings.pace.saturating_sub(last.elapsed()));
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
        let State { working, published, frames, announced, pending, .. } = &mut *state;
        (*pending, *announced) = (false, Some(Instant::now()));
        let Some(working) = working else { return };
        match published {
            None => *published = Some(working.clone()),
            Some(published) => {
                let topics: Vec<_> = Topic::all().collect();
                let Some(frame) = working.frame_since(Some(published.version()), &topics) else { return };
                if published.apply(&frame).is_err() {
                    // The working state never goes back, so its frames always fit; were that ever wrong, its
                    // whole state would still be right.
                    *published = working.clone();
                }
            }
        }
        *frames = Frames::default();
        drop(state);
        self.announced.send_modify(|announced| announced.version += 1);
    }
}

/// Beats for as long as the hub lives.
async fn keep_beating(hub: Weak<Hub>, audience: Audience, ended: CancellationToken) {
    let interval = match (hub.upgrade(), audience) {
        (None, _) => return,
        (Some(hub), Audience::Clients) => hub.settings.heartbeat,
        (Some(hub), Audience::Gateways) => hub.settings.internal_heartbeat,
    };
    let mut heartbeat = tokio::time::interval(interval.max(Duration::from_millis(1)));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {}
            () = ended.cancelled() => return,
        }
        let Some(hub) = hub.upgrade() else { return };
        hub.beat(audience);
    }
}
