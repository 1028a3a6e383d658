//! Whether the upstream is alive, how old the counts are, and when subscribers are reminded.
//!
//! Invariants:
//! - A heartbeat says "live" only if the upstream was seen alive since the heartbeat before it. An
//!   upstream that was not seen for [`MISSED_BEATS`] heartbeats is stale. The counts are complete
//!   until the moment since when it is stale.
//! - The published counts have every event that was committed before [`Liveness::published`].

use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;
use tokio::time::Instant;

use crate::status::{Status, UpstreamStatus};

/// A hub becomes stale after this many heartbeats to gateways without a sign of life of its
/// upstream. Without this, a publisher whose database hangs would send new subscribers the status
/// `live`.
const MISSED_BEATS: u32 = 2;

/// A kind of subscriber. Each has its own heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Pages and programs.
    Clients,
    /// Other gateways. They need short heartbeats, to notice soon when the stream falls silent.
    Gateways,
}

/// What to announce at a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing: the upstream was not seen alive since the last heartbeat.
    Skip,
    /// The same status as before, to the audience of this heartbeat.
    Repeat,
    /// That the upstream is lost, to all subscribers.
    Lost,
}

#[derive(Debug)]
pub(crate) struct Liveness {
    upstream: UpstreamStatus,
    since: OffsetDateTime,
    last_alive: Option<Instant>,
    /// The working counts have every event that was committed before.
    complete: Option<Instant>,
    /// The published counts have every event that was committed before.
    published: Option<Instant>,
    /// How old the counts were when the upstream sent its last status, as far as it says so.
    reported_age: Option<Duration>,
    /// Whether the upstream was seen alive since the last heartbeat, per [`Audience`].
    seen: [bool; 2],
    /// Consecutive heartbeats to gateways without a sign of life.
    missed: u32,
}

impl Liveness {
    /// An upstream that was never seen alive.
    pub(crate) fn new() -> Self {
        let since = OffsetDateTime::now_utc();
        Self {
            upstream: UpstreamStatus::Stale,
            since,
            last_alive: None,
            complete: None,
            published: None,
            reported_age: None,
            seen: [false; 2],
            missed: 0,
        }
    }

    /// Records that the upstream was alive at `moment`, and how old the working counts were then.
    /// `is_published` says whether those are the published ones. Returns whether the status
    /// changed.
    pub(crate) fn mark_live(&mut self, moment: Instant, age: Duration, is_published: bool) -> bool {
        self.last_alive = Some(moment);
        self.complete = moment.checked_sub(age);
        if is_published {
            self.publish();
        }
        self.seen = [true; 2];
        self.missed = 0;
        let changed = self.upstream == UpstreamStatus::Stale;
        if changed {
            self.upstream = UpstreamStatus::Live;
            self.since = OffsetDateTime::now_utc();
        }
        changed
    }

    /// Returns whether the status changed.
    pub(crate) fn mark_stale(&mut self) -> bool {
        self.mark_stale_for(Duration::ZERO)
    }

    /// Records that the upstream reports itself as stale for `age`. It noticed that later than it
    /// began, and sent signs of life until then. Returns whether the status changed.
    pub(crate) fn mark_stale_for(&mut self, age: Duration) -> bool {
        let now = OffsetDateTime::now_utc();
        let changed = self.upstream == UpstreamStatus::Live;
        if changed {
            self.upstream = UpstreamStatus::Stale;
            // The last sign of life: a lost upstream is noticed later than it was lost.
            let silence = self.complete.map_or(Duration::ZERO, |moment| moment.elapsed());
            self.since = now - silence;
        }
        // The earlier one, because clients take the counts for complete until then.
        self.since = self.since.min(now - age);
        let complete = Instant::now().checked_sub(age);
        for moment in [&mut self.complete, &mut self.published] {
            *moment = (*moment).map_or(complete, |known| complete.map(|other| known.min(other)));
        }
        changed
    }

    /// Records that the working counts are published now.
    pub(crate) const fn publish(&mut self) {
        self.published = self.complete;
    }

    /// The published counts have every event that was committed before. `None` before the first.
    pub(crate) const fn published(&self) -> Option<Instant> {
        self.published
    }

    pub(crate) const fn set_reported_age(&mut self, age: Option<Duration>) {
        self.reported_age = age;
    }

    pub(crate) const fn reported_age(&self) -> Option<Duration> {
        self.reported_age
    }

    /// A stale status is repeated at every heartbeat, a live one only after a sign of life.
    pub(crate) fn beat(&mut self, audience: Audience) -> Beat {
        let seen = std::mem::take(&mut self.seen[audience as usize]);
        if seen || self.upstream == UpstreamStatus::Stale {
            return Beat::Repeat;
        }
        if audience == Audience::Gateways {
            self.missed += 1;
        }
        if self.missed < MISSED_BEATS {
            return Beat::Skip;
        }
        self.mark_stale();
        Beat::Lost
    }

    pub(crate) fn was_live_within(&self, time: Duration) -> bool {
        self.last_alive.is_some_and(|moment| moment.elapsed() < time)
    }

    pub(crate) const fn upstream(&self) -> UpstreamStatus {
        self.upstream
    }

    pub(crate) fn status(&self) -> Status {
        let now = OffsetDateTime::now_utc();
        Status {
            upstream: self.upstream,
            since: rfc_3339(self.since),
            now: rfc_3339(now),
            age_ms: None,
            access: None,
        }
    }
}

/// RFC 3339, always with three decimals, so that all times are texts of one length.
fn rfc_3339(time: OffsetDateTime) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    time.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_upstream_is_stale_since_its_last_sign_of_life() {
        let mut liveness = Liveness::new();
        liveness.mark_live(Instant::now(), Duration::ZERO, true);
        tokio::time::advance(100 * SECOND).await;
        assert!(liveness.mark_stale());
        assert!(liveness.since <= OffsetDateTime::now_utc() - 100 * SECOND);
        // As `age` is measured from now, these are later and earlier moments.
        let since = liveness.since;
        assert!(!liveness.mark_stale_for(90 * SECOND));
        assert_eq!(liveness.since, since);
        assert!(!liveness.mark_stale_for(110 * SECOND));
        assert!(liveness.since <= OffsetDateTime::now_utc() - 110 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_reports_itself_as_stale_was_so_before() {
        let mut liveness = Liveness::new();
        liveness.mark_live(Instant::now(), Duration::ZERO, true);
        tokio::time::advance(SECOND).await;
        assert!(liveness.mark_stale_for(2 * SECOND));
        assert!(liveness.since <= OffsetDateTime::now_utc() - 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn published_counts_get_older_until_newer_ones_are_published() {
        let mut liveness = Liveness::new();
        let age = |liveness: &Liveness| liveness.published().map(|moment| moment.elapsed());
        assert_eq!(age(&liveness), None);
        tokio::time::advance(100 * SECOND).await;
        liveness.mark_live(Instant::now(), 2 * SECOND, true);
        tokio::time::advance(SECOND).await;
        assert_eq!(age(&liveness), Some(3 * SECOND));
        // A change waits for the pace.
        liveness.mark_live(Instant::now(), Duration::ZERO, false);
        assert_eq!(age(&liveness), Some(3 * SECOND));
        liveness.publish();
        assert_eq!(age(&liveness), Some(Duration::ZERO));
        liveness.mark_stale();
        tokio::time::advance(SECOND).await;
        assert_eq!(age(&liveness), Some(SECOND));
        liveness.mark_stale_for(10 * SECOND);
        assert_eq!(age(&liveness), Some(10 * SECOND));
    }

    #[test]
    fn times_have_three_decimals() {
        assert_eq!(rfc_3339(datetime!(2026-11-26 09:37:00 UTC)), "2026-11-26T09:37:00.000Z");
        let time = datetime!(2026-11-26 09:37:00.0829 UTC);
        assert_eq!(rfc_3339(time), "2026-11-26T09:37:00.082Z");
    }
}
