//! The bucket lengths: millisecond to year.

use std::fmt;
use std::str::FromStr;

use time::{Date, Month, OffsetDateTime, Time};

use crate::BucketTime;

/// The length of a bucket. All units follow UTC and the proleptic Gregorian calendar, as Postgres
/// does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimeUnit {
    /// A thousandth of a second. The finest unit, and the one that the change log uses.
    Millisecond,
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day from midnight UTC.
    Day,
    /// A week from Monday (ISO 8601).
    Week,
    /// A calendar month.
    Month,
    /// Three calendar months, from January, April, July or October.
    Quarter,
    /// A calendar year.
    Year,
}

impl TimeUnit {
    /// Every unit, finest first.
    pub const ALL: [Self; 9] = [
        Self::Millisecond,
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::Year,
    ];

    /// The name in paths, frames and the `unit` column. It is also the field name for Postgres'
    /// [`date_trunc`], except that Postgres spells the finest unit `milliseconds`. The code never
    /// asks for that one, because the change log already counts in milliseconds.
    ///
    /// [`date_trunc`]: https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-TRUNC
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Millisecond => "millisecond",
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }

    /// The most buckets that a live window holds: the newest that were ever touched.
    pub const fn window(self) -> usize {
        match self {
            Self::Millisecond => 1_000,
            Self::Second => 3_600,
            Self::Minute => 1_440,
            Self::Hour => 2_160,
            Self::Day => 400,
            Self::Week => 160,
            Self::Month => 120,
            Self::Quarter => 80,
            Self::Year => 100,
        }
    }

    /// The start of the bucket that contains `time`.
    pub fn truncate(self, time: BucketTime) -> BucketTime {
        let milliseconds = time.unix_milliseconds();
        let floor =
            |length: i64| BucketTime::floored(milliseconds - milliseconds.rem_euclid(length));
        match self {
            Self::Millisecond => time,
            Self::Second => floor(1_000),
            Self::Minute => floor(60_000),
            Self::Hour => floor(3_600_000),
            Self::Day => floor(86_400_000),
            // January 1 of year 1 is a Monday, so no week starts before the range.
            Self::Week => {
                let since_monday = i64::from(time.date().weekday().number_days_from_monday());
                let midnight = milliseconds - milliseconds.rem_euclid(86_400_000);
                BucketTime::floored(midnight - since_monday * 86_400_000)
            }
            Self::Month => first_of(time.date().year(), time.date().month()),
            Self::Quarter => {
                let month = match u8::from(time.date().month()) {
                    1..=3 => Month::January,
                    4..=6 => Month::April,
                    7..=9 => Month::July,
                    _ => Month::October,
                };
                first_of(time.date().year(), month)
            }
            Self::Year => first_of(time.date().year(), Month::January),
        }
    }
}

/// Midnight on the first day of a month. The year must be in the range of [`BucketTime`].
fn first_of(year: i32, month: Month) -> BucketTime {
    #[expect(clippy::expect_used, reason = "every month of years 1 to 9999 has a first day")]
    let date = Date::from_calendar_date(year, month, 1).expect("a month has a first day");
    let seconds = OffsetDateTime::new_utc(date, Time::MIDNIGHT).unix_timestamp();
    BucketTime::floored(seconds * 1_000)
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The text is not the name of a [`TimeUnit`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown unit {0:?}: expected millisecond, second, minute, hour, day, week, month, quarter or year"
)]
pub struct UnknownTimeUnit(String);

impl FromStr for TimeUnit {
    type Err = UnknownTimeUnit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|unit| unit.as_str() == text)
            .ok_or_else(|| UnknownTimeUnit(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truncated(unit: TimeUnit, text: &str) -> String {
        unit.truncate(text.parse().unwrap()).to_string()
    }

    #[test]
    fn truncates_to_the_start_of_each_unit() {
        let time = "2024-02-29T23:59:59.999Z";
        let starts = TimeUnit::ALL.map(|unit| truncated(unit, time));
        assert_eq!(
            starts,
            [
                "2024-02-29T23:59:59.999Z",
                "2024-02-29T23:59:59Z",
                "2024-02-29T23:59:00Z",
                "2024-02-29T23:00:00Z",
                "2024-02-29T00:00:00Z",
                "2024-02-26T00:00:00Z",
                "2024-02-01T00:00:00Z",
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:00:00Z",
            ]
        );
    }

    #[test]
    fn times_before_1970_are_rounded_down_too() {
        assert_eq!(truncated(TimeUnit::Second, "1969-12-31T23:59:59.001Z"), "1969-12-31T23:59:59Z");
        assert_eq!(truncated(TimeUnit::Week, "1969-12-31T00:00:00Z"), "1969-12-29T00:00:00Z");
    }

    #[test]
    fn an_iso_week_may_begin_in_the_year_before() {
        assert_eq!(truncated(TimeUnit::Week, "2021-01-03T12:00:00Z"), "2020-12-28T00:00:00Z");
    }

    #[test]
    fn the_ends_of_the_range_stay_in_range() {
        for unit in TimeUnit::ALL {
            assert_eq!(unit.truncate(BucketTime::MIN), BucketTime::MIN, "{unit}");
            assert!(unit.truncate(BucketTime::MAX) <= BucketTime::MAX, "{unit}");
        }
    }
}
