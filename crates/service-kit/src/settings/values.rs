//! Types of single settings.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The shortest duration that is not zero. Postgres' timeouts are in milliseconds, and 0 would
/// switch them off.
const NON_ZERO_MIN: Duration = Duration::from_millis(1);

/// The longest duration. Postgres holds its timeouts as milliseconds in 32 bits, which is a little
/// more.
const DURATION_MAX: Duration = Duration::from_hours(24 * 24);

/// A duration of at least a millisecond, written with its unit: "250ms", "5s", "1h".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
        humantime::format_duration(self.0).fmt(formatter)
    }
}

impl<'de> Deserialize<'de> for NonZeroDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        at_least(NON_ZERO_MIN, deserializer).map(Self)
    }
}

/// Deserializes a duration that may be zero.
///
/// # Errors
/// It has no unit, or is longer than 24 days.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    at_least(Duration::ZERO, deserializer)
}

fn at_least<'de, D: Deserializer<'de>>(least: Duration, from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let duration = humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!("{text:?} is not a duration such as \"5s\": {error}"))
    })?;
    if (least..=DURATION_MAX).contains(&duration) {
        return Ok(duration);
    }
    let [least, most] = [least, DURATION_MAX].map(humantime::format_duration);
    Err(D::Error::custom(format!("{text} is not from {least} to {most}")))
}

/// Deserializes a number of things for which the program allocates memory or threads at startup.
/// With more than `MAX`, it could crash without naming the setting.
///
/// # Errors
/// It is not from 1 to `MAX`.
pub fn from_1_to<'de, const MAX: usize, D: Deserializer<'de>>(
    from: D,
) -> Result<NonZeroUsize, D::Error> {
    let number = u64::deserialize(from)?;
    let count = usize::try_from(number).ok().filter(|count| *count <= MAX);
    let count = count.and_then(NonZeroUsize::new);
    count.ok_or_else(|| D::Error::custom(format!("{number} is not from 1 to {MAX}")))
}

/// Deserializes the items of a comma-separated setting. Such a setting is one string, so that one
/// variable can set it.
///
/// # Errors
/// It is not text.
pub fn comma_separated<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(split_at_commas(&String::deserialize(from)?))
}

/// The items of a text that commas separate, without the spaces around them.
#[must_use]
pub fn split_at_commas(text: &str) -> Vec<String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

/// Deserializes the items of a comma-separated setting, each by its `FromStr`. The error quotes the
/// item, so no item may be a secret.
///
/// # Errors
/// It is not text, or an item cannot be parsed.
pub fn parsed<'de, T: FromStr<Err: fmt::Display>, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let parse = |item: &String| {
        item.parse().map_err(|error| D::Error::custom(format!("{item:?} is not {error}")))
    };
    comma_separated(from)?.iter().map(parse).collect()
}
