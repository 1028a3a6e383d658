//! When a bucket starts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{Date, OffsetDateTime};

/// A UTC time in whole milliseconds, in years 1 to 9999. The database's checks allow exactly this
/// range, and RFC 3339 can write all of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketTime(i64);

/// Why a time cannot be a [`BucketTime`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTime {
    /// The year is before 1 or after 9999.
    #[error("time outside years 1 to 9999")]
    OutOfRange,
    /// The text is not an RFC 3339 time.
    #[error("{0:?} is not an RFC 3339 time, such as 2026-11-23T09:37:00Z")]
    NotRfc3339(String),
}

impl BucketTime {
    /// The first millisecond of year 1.
    pub const MIN: Self = Self(datetime!(0001-01-01 0:00 UTC).unix_timestamp() * 1_000);
    /// The last millisecond of year 9999.
    pub const MAX: Self = Self(datetime!(9999-12-31 23:59:59 UTC).unix_timestamp() * 1_000 + 999);

    /// The time `milliseconds` after 1970-01-01T00:00:00Z.
    pub fn from_unix_milliseconds(milliseconds: i64) -> Result<Self, InvalidTime> {
        let time = Self(milliseconds);
        if (Self::MIN..=Self::MAX).contains(&time) {
            Ok(time)
        } else {
            Err(InvalidTime::OutOfRange)
        }
    }

    /// A valid time rounded down to the start of a unit. The result is in range too, because every
    /// unit has a bucket that starts at [`BucketTime::MIN`].
    pub(crate) const fn floored(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// Parses an RFC 3339 time and rounds it up to a whole millisecond, at most
    /// [`BucketTime::MAX`].
    ///
    /// The bounds of a period need this: a period that begins (or ends) within a millisecond begins
    /// (or ends) at the next bucket.
    pub fn parse_rounded_up(text: &str) -> Result<Self, InvalidTime> {
        let time = parse(text)?;
        let floor = Self::try_from(time)?;
        let finer = OffsetDateTime::from(floor) < time;
        Ok(Self((floor.0 + i64::from(finer)).min(Self::MAX.0)))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, negative before.
    pub const fn unix_milliseconds(self) -> i64 {
        self.0
    }

    pub(crate) fn date(self) -> Date {
        self.to_utc().date()
    }

    fn to_utc(self) -> OffsetDateTime {
        #[expect(clippy::expect_used, reason = "OffsetDateTime has years 1 to 9999")]
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .expect("the range of BucketTime lies within the range of OffsetDateTime")
    }
}

fn parse(text: &str) -> Result<OffsetDateTime, InvalidTime> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidTime::NotRfc3339(text.to_owned()))
}

impl From<BucketTime> for OffsetDateTime {
    fn from(time: BucketTime) -> Self {
        time.to_utc()
    }
}

impl TryFrom<OffsetDateTime> for BucketTime {
    type Error = InvalidTime;

    /// Rounds down to a whole millisecond.
    fn try_from(time: OffsetDateTime) -> Result<Self, Self::Error> {
        let milliseconds = time.unix_timestamp_nanos().div_euclid(1_000_000);
        Self::from_unix_milliseconds(
            i64::try_from(milliseconds).map_err(|_| InvalidTime::OutOfRange)?,
        )
    }
}

/// RFC 3339 with `Z`, and with three decimals unless the time is a whole second.
impl fmt::Display for BucketTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.to_utc();
        let month = u8::from(time.month());
        write!(formatter, "{:04}-{month:02}-{:02}T", time.year(), time.day())?;
        write!(formatter, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())?;
        match time.millisecond() {
            0 => formatter.write_str("Z"),
            millisecond => write!(formatter, ".{millisecond:03}Z"),
        }
    }
}

impl fmt::Debug for BucketTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for BucketTime {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(parse(text)?)
    }
}

impl TryFrom<String> for BucketTime {
    type Error = InvalidTime;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BucketTime> for String {
    fn from(time: BucketTime) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_are_written_without_decimals() {
        for text in ["2026-11-23T09:37:00Z", "1969-12-31T23:59:59.007Z", "0001-01-01T00:00:00Z"] {
            assert_eq!(text.parse::<BucketTime>().unwrap().to_string(), text);
        }
        assert_eq!(BucketTime::MAX.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn the_bounds_of_a_period_are_rounded_up_to_a_millisecond() {
        let rounded = |text| BucketTime::parse_rounded_up(text).map(|time| time.to_string());
        for (text, expected) in [
            ("2026-11-23T09:37:00Z", "2026-11-23T09:37:00Z"),
            ("2026-11-23T09:37:00.0000001Z", "2026-11-23T09:37:00.001Z"),
            ("1969-12-31T23:59:59.9991Z", "1970-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.9999Z", "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rounded(text).as_deref(), Ok(expected));
        }
        assert_eq!(rounded("0000-12-31T23:59:59.9999Z"), Err(InvalidTime::OutOfRange));
    }

    #[test]
    fn times_outside_the_range_are_refused() {
        assert_eq!("0000-12-31T23:59:59Z".parse::<BucketTime>(), Err(InvalidTime::OutOfRange));
        let above = BucketTime::MAX.unix_milliseconds() + 1;
        assert_eq!(BucketTime::from_unix_milliseconds(above), Err(InvalidTime::OutOfRange));
        assert!(matches!("yesterday".parse::<BucketTime>(), Err(InvalidTime::NotRfc3339(_))));
    }
}
