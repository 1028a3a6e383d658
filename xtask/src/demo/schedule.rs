//! When events happen: a Poisson process whose rate follows the rhythm of the week, and now and then rises to a
//! burst for some seconds.
//!
//! Invariant: the long-run mean rate is the one asked for, and the same dice give the same times.

use rand::RngExt;
use rand::rngs::StdRng;
use time::{Duration, OffsetDateTime};

use crate::demo::rhythm::{self, busyness};

/// How long it is calm between two bursts, and how long a burst lasts, both on average, in seconds.
const CALM_SECONDS: f64 = 60.0;
const BURST_SECONDS: f64 = 8.0;

/// How much higher the rate of a burst is than that of the calm.
const BURST: f64 = 5.0;

/// The rate of the calm where the mean is 1: what a burst is above the mean, the calm is below it.
const CALM: f64 = (CALM_SECONDS + BURST_SECONDS) / (CALM_SECONDS + BURST * BURST_SECONDS);

/// The times of events, in order, without end.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// Events a second, on average.
    rate: f64,
    random: StdRng,
    /// Up to here is decided.
    decided: OffsetDateTime,
    bursting: bool,
    /// When the burst, or the calm, ends.
    changes: OffsetDateTime,
}

impl Arrivals {
    /// Events from `start` on, of so many a second on average.
    pub(crate) fn new(start: OffsetDateTime, rate: f64, random: StdRng) -> Self {
        let mut arrivals = Self { rate, random, decided: start, bursting: false, changes: start };
        arrivals.changes = start.saturating_add(arrivals.wait(1.0 / CALM_SECONDS));
        arrivals
    }

    /// Leaves out all that would have happened before `time`.
    pub(crate) fn skip_to(&mut self, time: OffsetDateTime) {
        while self.changes <= time {
            self.decided = self.changes;
            self.change();
        }
        self.decided = self.decided.max(time);
    }

    /// The burst begins, or ends.
    fn change(&mut self) {
        self.bursting = !self.bursting;
        let seconds = if self.bursting { BURST_SECONDS } else { CALM_SECONDS };
        self.changes = self.decided.saturating_add(self.wait(1.0 / seconds));
    }

    /// A random wait for what happens so many times a second on average, whatever happened before.
    fn wait(&mut self, rate: f64) -> Duration {
        let uniform: f64 = self.random.random();
        // At least a nanosecond, so that time goes on.
        Duration::saturating_seconds_f64(-(1.0 - uniform).ln() / rate).max(Duration::NANOSECOND)
    }
}

impl Iterator for Arrivals {
    type Item = OffsetDateTime;

    /// By thinning: candidates come at the highest rate there can be, and each is kept with the probability that
    /// its moment deserves (Lewis and Shedler, 1979).
    fn next(&mut self) -> Option<OffsetDateTime> {
        loop {
            let rate = self.rate * if self.bursting { CALM * BURST } else { CALM };
            let candidate = self.decided.checked_add(self.wait(rate * rhythm::PEAK))?;
            if candidate >= self.changes {
                // The wait of what remains is as random as the whole was.
                self.decided = self.changes;
                self.change();
                continue;
            }
            self.decided = candidate;
            if self.random.random::<f64>() * rhythm::PEAK < busyness(candidate) {
                return Some(candidate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use time::macros::datetime;

    use super::*;

    /// A Monday.
    const MONDAY: OffsetDateTime = datetime!(2026-11-23 0:00 UTC);

    fn arrivals(rate: f64, seed: u64) -> Arrivals {
        Arrivals::new(MONDAY, rate, StdRng::seed_from_u64(seed))
    }

    /// How many events happen in each of `count` spans of a length.
    fn counts(arrivals: Arrivals, span: Duration, count: usize) -> Vec<f64> {
        let mut counts = vec![0.0; count];
        for time in arrivals {
            let place = ((time - MONDAY) / span).floor();
            if place >= f64::from(u32::try_from(count).unwrap()) {
                break;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below count")]
            let place = place as usize;
            counts[place] += 1.0;
        }
        counts
    }

    #[test]
    fn the_mean_rate_is_the_one_asked_for() {
        for rate in [0.05, 0.2] {
            let events: f64 = counts(arrivals(rate, 1), Duration::weeks(1), 4).iter().sum();
            let expected = rate * 4.0 * 7.0 * 86_400.0;
            assert!((events / expected - 1.0).abs() < 0.03, "{events} of {expected}");
        }
    }

    #[test]
    fn the_same_dice_give_the_same_times_and_others_give_others() {
        let times = |seed| arrivals(5.0, seed).take(1_000).collect::<Vec<_>>();
        assert_eq!(times(7), times(7));
        assert_ne!(times(7), times(8));
        assert!(times(7).is_sorted());
    }

    #[test]
    fn the_hours_of_a_day_follow_the_rhythm() {
        let hours = counts(arrivals(1.0, 2), Duration::HOUR, 24);
        assert!(hours[13] > 3.0 * hours[1], "{hours:?}");
    }

    #[test]
    fn seconds_come_in_bursts() {
        // From ten o'clock, an hour in which the rhythm hardly changes.
        let hour = &counts(arrivals(5.0, 3), Duration::SECOND, 14 * 3_600)[12 * 3_600..13 * 3_600];
        let mean = hour.iter().sum::<f64>() / 3_600.0;
        let variance = hour.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 3_600.0;
        // Without bursts the two are equal.
        assert!(variance > 2.0 * mean, "variance {variance}, mean {mean}");
    }

    #[test]
    fn what_is_skipped_does_not_happen() {
        let mut arrivals = arrivals(5.0, 4);
        let later = MONDAY + Duration::HOUR;
        arrivals.skip_to(later);
        let first = arrivals.next().unwrap();
        assert!(first >= later && first < later + Duration::MINUTE, "{first}");
        arrivals.skip_to(MONDAY);
        assert!(arrivals.next().unwrap() > first, "time never goes back");
    }
}
