//! How busy the company is at which time, by the clock of UTC.
//!
//! Invariant: the mean over a week is 1, so whatever is multiplied by it keeps its mean.

use std::f64::consts::TAU;

use time::OffsetDateTime;

/// How much busier than the mean the busiest hour of a day is, and how much less busy its quietest.
const SWING: f64 = 0.8;

/// The quietest time of a day, in hours after midnight; the busiest is half a day later.
const QUIETEST_HOUR: f64 = 1.0;

/// How busy the days of a week are, from Monday. Their mean is 1.
const DAYS: [f64; 7] = [1.15, 1.15, 1.1, 1.15, 1.2, 0.75, 0.5];

/// How much busier than the mean the middle of June is, and how much less busy the middle of December.
const SEASON: f64 = 0.25;

/// The day of the year that is busiest, counted from 1.
const BUSIEST_DAY: f64 = 166.0;

/// More than [`busyness`] ever is.
pub(crate) const PEAK: f64 = 2.2;

/// How busy a moment is, where 1 is the mean of its week. Smooth but for midnight, where one day's weight follows
/// the other's while little happens.
pub(crate) fn busyness(time: OffsetDateTime) -> f64 {
    let seconds = f64::from(u32::from(time.hour()) * 3_600 + u32::from(time.minute()) * 60)
        + f64::from(time.second())
        + f64::from(time.millisecond()) / 1_000.0;
    let day = usize::from(time.weekday().number_days_from_monday());
    DAYS[day] * (1.0 - SWING * (TAU * (seconds / 3_600.0 - QUIETEST_HOUR) / 24.0).cos())
}

/// How busy a day of the year is, where 1 is the mean of the year.
pub(crate) fn season(time: OffsetDateTime) -> f64 {
    1.0 + SEASON * (TAU * (f64::from(time.ordinal()) - BUSIEST_DAY) / 365.25).cos()
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    /// A Monday.
    const MONDAY: OffsetDateTime = datetime!(2026-11-23 0:00 UTC);

    fn minutes(count: i64) -> impl Iterator<Item = f64> {
        (0..count).map(|minute| busyness(MONDAY + Duration::minutes(minute)))
    }

    #[test]
    fn the_mean_of_a_week_is_one() {
        let mean = minutes(7 * 1_440).sum::<f64>() / f64::from(7 * 1_440);
        assert!((mean - 1.0).abs() < 1e-9, "{mean}");
    }

    #[test]
    fn a_day_rises_once_to_its_peak_and_falls() {
        let day: Vec<f64> = minutes(1_440).collect();
        let busiest = day.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)).unwrap().0;
        assert_eq!(busiest, 13 * 60);
        assert!(day[60..=busiest].is_sorted() && day[busiest..].iter().rev().is_sorted());
        let steepest = day.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f64::max);
        assert!(steepest < 0.01, "a minute may not differ much from the next: {steepest}");
        assert!(day[busiest] > 5.0 * day[60]);
    }

    #[test]
    fn weekdays_are_busier_than_the_weekend() {
        let noon = |day| busyness(MONDAY + Duration::days(day) + Duration::hours(12));
        assert!(noon(0) > noon(5) && noon(5) > noon(6));
    }

    #[test]
    fn nothing_exceeds_the_peak() {
        assert!(minutes(7 * 1_440).all(|busyness| busyness > 0.0 && busyness < PEAK));
    }

    #[test]
    fn summer_is_busier_than_winter() {
        assert!(season(datetime!(2026-06-15 0:00 UTC)) > 1.24);
        assert!(season(datetime!(2026-12-15 0:00 UTC)) < 0.76);
    }
}
