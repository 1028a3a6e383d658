//! Types of single settings.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use humantime::{format_duration, parse_duration};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The longest duration. Postgres holds its timeouts as milliseconds in 32 bits, which is a little
/// more.
const DURATION_MAX: Duration = Duration::from_hours(24 * 24);

/// A duration of at least a millisecond, written with its unit: "250ms", "5s", "1h".
///
/// Whole milliseconds, because Postgres' timeouts are, and 0 would switch them off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NonZeroDuration(Duration);

impl NonZeroDuration {
    /// This many milliseconds, and 1 instead of 0.
    #[must_use]
    pub const fn from_millis(milliseconds: u32) -> Self {
        let milliseconds = if milliseconds == 0 { 1 } else { milliseconds };
        Self(Duration::from_millis(milliseconds as u64))
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for NonZeroDuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        format_duration(self.0).fmt(formatter)
    }
}

impl TryFrom<Duration> for NonZeroDuration {
    type Error = String;

    fn try_from(duration: Duration) -> Result<Self, String> {
        in_range(duration, Duration::from_millis(1)).map(Self)
    }
}

impl TryFrom<String> for NonZeroDuration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse(&text)?.try_into()
    }
}

/// Deserializes a duration that may be zero.
///
/// # Errors
/// It has no unit, or is longer than 24 days.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).and_then(|duration| in_range(duration, Duration::ZERO)).map_err(D::Error::custom)
}

fn parse(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .map_err(|error| format!("{text:?} is not a duration such as \"5s\": {error}"))
}

fn in_range(duration: Duration, least: Duration) -> Result<Duration, String> {
    if (least..=DURATION_MAX).contains(&duration)
        && duration.subsec_nanos().is_multiple_of(1_000_000)
    {
        return Ok(duration);
    }
    let [duration, least, most] = [duration, least, DURATION_MAX].map(format_duration);
    Err(format!("{duration} is not from {least} to {most} in whole milliseconds"))
}

/// A number from 1 to `MAX` of things for which the program allocates memory or threads at startup.
/// With more, it would crash without naming the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Count<const MAX: usize>(NonZeroUsize);

impl<const MAX: usize> Count<MAX> {
    /// The number.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0.get()
    }
}

impl<const MAX: usize> TryFrom<u64> for Count<MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        let count =
            usize::try_from(number).ok().filter(|count| *count <= MAX).and_then(NonZeroUsize::new);
        count.map(Self).ok_or_else(|| format!("{number} is not from 1 to {MAX}"))
    }
}

/// The items of a comma-separated setting. Such a setting is one string, so that one variable can
/// set it.
pub fn comma_separated(setting: &str) -> impl Iterator<Item = &str> {
    setting.split(',').map(str::trim).filter(|item| !item.is_empty())
}
