//! The start of a bucket.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{Date, OffsetDateTime};

/// A time of UTC at a whole millisecond, within years 1 to 9999: the range that the database's checks allow
/// and that RFC 3339 can write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketTime(i64);

/// The time lies outside years 1 to 9999, or is not RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfRange {
    /// The time lies outside the range.
    #[error("time outside years 1 to 9999")]
    Year,
    /// The text is not an RFC 3339 time.
    #[error("{0:?} is not an RFC 3339 time, such as 2026-11-23T09:37:00Z")]
    Form(String),
}

impl BucketTime {
    /// The first millisecond of year 1.
    pub const MIN: Self = Self(datetime!(0001-01-01 0:00 UTC).unix_timestamp() * 1_000);
    /// The last millisecond of year 9999.
    pub const MAX: Self = Self(datetime!(9999-12-31 23:59:59 UTC).unix_timestamp() * 1_000 + 999);

    /// The time `milliseconds` after 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// [`OutOfRange::Year`] outside years 1 to 9999.
    pub fn from_unix_milliseconds(milliseconds: i64) -> Result<Self, OutOfRange> {
        let time = Self(milliseconds);
        if (Self::MIN..=Self::MAX).contains(&time) { Ok(time) } else { Err(OutOfRange::Year) }
    }

    /// A time that was rounded down from one in range to the start of a unit. Every unit has a boundary at
    /// [`BucketTime::MIN`], so the result is in range too.
    pub(crate) const fn floored(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// The first time that is not before a time of RFC 3339, which may be finer than a millisecond: where a period that
    /// begins or ends at that time begins or ends in terms of buckets. [`BucketTime::MAX`] where there is none.
    ///
    /// # Errors
    /// [`OutOfRange`]
    pub fn not_before(text: &str) -> Result<Self, OutOfRange> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| OutOfRange::Form(text.to_owned()))?;
        let floor = Self::try_from(time)?;
        let finer = OffsetDateTime::from(floor) < time;
        Ok(Self((floor.0 + i64::from(finer)).min(Self::MAX.0)))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, negative before.
    #[must_use]
    pub const fn unix_milliseconds(self) -> i64 {
        self.0
    }

    pub(crate) fn date(self) -> Date {
        self.to_utc().date()
    }

    fn to_utc(self) -> OffsetDateTime {
        #[expect(clippy::expect_used, reason = "years 1 to 9999 are within those of OffsetDateTime")]
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .expect("the range of BucketTime lies within that of OffsetDateTime")
    }
}

impl From<BucketTime> for OffsetDateTime {
    fn from(time: BucketTime) -> Self {
        time.to_utc()
    }
}

impl TryFrom<OffsetDateTime> for BucketTime {
    type Error = OutOfRange;

    /// Rounds down to a whole millisecond.
    fn try_from(time: OffsetDateTime) -> Result<Self, Self::Error> {
        let milliseconds = time.unix_timestamp_nanos().div_euclid(1_000_000);
        Self::from_unix_milliseconds(i64::try_from(milliseconds).map_err(|_| OutOfRange::Year)?)
    }
}

/// RFC 3339 with `Z`, and with three decimals where the time is not at a whole second.
impl fmt::Display for BucketTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.to_utc();
        let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
        let (hour, minute, second) = time.to_hms();
        write!(formatter, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
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
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| OutOfRange::Form(text.to_owned()))?;
        Self::try_from(time)
    }
}

impl TryFrom<String> for BucketTime {
    type Error = OutOfRange;

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
    fn writes_decimals_only_where_there_are_some() {
        for text in ["2026-11-23T09:37:00Z", "1969-12-31T23:59:59.007Z", "0001-01-01T00:00:00Z"] {
            assert_eq!(text.parse::<BucketTime>().unwrap().to_string(), text);
        }
        assert_eq!(BucketTime::MAX.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_finer_time_is_rounded_up_where_a_period_begins_or_ends() {
        let rounded = |text| BucketTime::not_before(text).map(|time| time.to_string());
        assert_eq!(rounded("2026-11-23T09:37:00Z").as_deref(), Ok("2026-11-23T09:37:00Z"));
        assert_eq!(rounded("2026-11-23T09:37:00.0000001Z").as_deref(), Ok("2026-11-23T09:37:00.001Z"));
        assert_eq!(rounded("1969-12-31T23:59:59.9991Z").as_deref(), Ok("1970-01-01T00:00:00Z"));
        assert_eq!(rounded("9999-12-31T23:59:59.9999Z").as_deref(), Ok("9999-12-31T23:59:59.999Z"));
        assert_eq!(rounded("0000-12-31T23:59:59.9999Z"), Err(OutOfRange::Year));
    }

    #[test]
    fn refuses_what_lies_outside_the_range() {
        assert_eq!("0000-12-31T23:59:59Z".parse::<BucketTime>(), Err(OutOfRange::Year));
        let above = BucketTime::MAX.unix_milliseconds() + 1;
        assert_eq!(BucketTime::from_unix_milliseconds(above), Err(OutOfRange::Year));
        assert!(matches!("yesterday".parse::<BucketTime>(), Err(OutOfRange::Form(_))));
    }
}
