//! The rows, and the types that their values are parsed into at the edge.
//!
//! Invariant: a value of these types can be stored. What cannot be (a NUL in a text, a year that RFC 3339
//! cannot write, a time finer than Postgres keeps) is refused or rounded while parsing.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;
use uuid::Uuid;

/// The most characters of a description: the bound of the constraint `base_items_description_length`.
pub const DESCRIPTION_CHARACTERS: usize = 1_000;

/// What identifies a row of one table.
pub trait Id: Copy + Ord + std::hash::Hash + fmt::Display + From<Uuid> + Into<Uuid> {}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl Id for $name {}

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    )*};
}

ids! {
    /// Identifies a base item.
    BaseItemId,
    /// Identifies a user.
    UserId,
    /// Identifies an item.
    ItemId,
    /// Identifies a transfer.
    TransferId,
}

/// A value that cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// A description is too long.
    #[error("must have at most {DESCRIPTION_CHARACTERS} characters")]
    TooLong,
    /// Postgres' text cannot hold the character U+0000.
    #[error("must not contain the character NUL")]
    Nul,
    /// Not a time of RFC 3339.
    #[error("must be a time as in RFC 3339, such as 2026-11-23T09:37:00.123Z")]
    NotRfc3339,
    /// Outside of what RFC 3339 can write in UTC.
    #[error("must lie in the years 1 to 9999 in UTC")]
    OutOfRange,
}

/// A text that says what a base item is. It may have every character but NUL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, max_length = 1000, pattern = r"^[^\u0000]*$", examples("a bicycle"))]
pub struct Description(String);

impl Description {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Description {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        if text.contains('\0') {
            return Err(InvalidValue::Nul);
        }
        if text.chars().count() > DESCRIPTION_CHARACTERS {
            return Err(InvalidValue::TooLong);
        }
        Ok(Self(text))
    }
}

/// When an event happened: in UTC, in years 1 to 9999, at the microseconds that Postgres keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, format = DateTime, examples("2026-11-23T09:37:00.123456Z"))]
pub struct EventTime(OffsetDateTime);

impl EventTime {
    /// The time, cut to microseconds.
    ///
    /// # Errors
    /// [`InvalidValue::OutOfRange`]
    pub fn new(time: OffsetDateTime) -> Result<Self, InvalidValue> {
        let time = time.checked_to_offset(UtcOffset::UTC).ok_or(InvalidValue::OutOfRange)?;
        let first = datetime!(0001-01-01 0:00 UTC);
        let time = time.replace_microsecond(time.microsecond()).map_err(|_| InvalidValue::OutOfRange)?;
        if time < first { Err(InvalidValue::OutOfRange) } else { Ok(Self(time)) }
    }

    /// The time in UTC.
    #[must_use]
    pub const fn utc(self) -> OffsetDateTime {
        self.0
    }
}

impl TryFrom<String> for EventTime {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| InvalidValue::NotRfc3339)?;
        Self::new(time)
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.format(&Rfc3339).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

/// What an item can be an instance of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct BaseItem {
    /// Identifies it.
    #[cfg_attr(test, ts(type = "string"))]
    pub id: BaseItemId,
    /// Says what it is.
    #[cfg_attr(test, ts(type = "string"))]
    pub description: Description,
}

/// Who can own items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct User {
    /// Identifies them.
    #[cfg_attr(test, ts(type = "string"))]
    pub id: UserId,
}

/// One item: an event of the metric item-creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Item {
    /// Identifies it.
    #[cfg_attr(test, ts(type = "string"))]
    pub id: ItemId,
    /// What it is an instance of.
    #[cfg_attr(test, ts(type = "string"))]
    pub base_item_id: BaseItemId,
    /// When it was created.
    #[cfg_attr(test, ts(type = "string"))]
    pub created_at: EventTime,
}

/// An item passing to a user: an event of the metric transfers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Transfer {
    /// Identifies it.
    #[cfg_attr(test, ts(type = "string"))]
    pub id: TransferId,
    /// When it happened.
    #[cfg_attr(test, ts(type = "string"))]
    pub timestamp: EventTime,
    /// The user that the item passed to.
    #[cfg_attr(test, ts(type = "string"))]
    pub owner_id: UserId,
    /// The item.
    #[cfg_attr(test, ts(type = "string"))]
    pub item_id: ItemId,
}

/// Who owns an item now: nobody, as long as it was never transferred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Owner {
    /// The item.
    #[cfg_attr(test, ts(type = "string"))]
    pub item_id: ItemId,
    /// Its owner.
    #[schema(required)]
    #[cfg_attr(test, ts(type = "string | null"))]
    pub owner_id: Option<UserId>,
    /// The transfer that made them so.
    #[schema(required)]
    #[cfg_attr(test, ts(type = "string | null"))]
    pub transfer_id: Option<TransferId>,
    /// When it happened.
    #[schema(required)]
    #[cfg_attr(test, ts(type = "string | null"))]
    pub since: Option<EventTime>,
}

/// A row to insert.
#[derive(Debug, Clone)]
pub struct New<R> {
    /// The row.
    pub row: R,
    /// Whether the caller said when it happened. A time that the service filled in is not held against the
    /// stored row when the same id is posted again.
    pub time_given: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Result<EventTime, InvalidValue> {
        EventTime::try_from(text.to_owned())
    }

    #[test]
    fn times_are_in_utc_and_cut_to_microseconds() {
        let parsed = time("2026-11-23T10:37:00.123456789+01:00").unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), "\"2026-11-23T09:37:00.123456Z\"");
    }

    #[test]
    fn times_before_1970_are_cut_downwards() {
        let parsed = time("1969-12-31T23:59:59.9999999Z").unwrap();
        assert_eq!(parsed.utc(), datetime!(1969-12-31 23:59:59.999999 UTC));
    }

    #[test]
    fn the_range_is_years_1_to_9999_in_utc() {
        assert!(time("0001-01-01T00:00:00Z").is_ok());
        assert_eq!(time("0001-01-01T00:00:00+00:01"), Err(InvalidValue::OutOfRange));
        assert_eq!(time("0000-12-31T23:59:59Z"), Err(InvalidValue::OutOfRange));
        assert!(time("9999-12-31T23:59:59.999999Z").is_ok());
        assert_eq!(time("9999-12-31T23:59:59-00:01"), Err(InvalidValue::OutOfRange));
        assert_eq!(time("infinity"), Err(InvalidValue::NotRfc3339));
    }

    #[test]
    fn descriptions_are_counted_in_characters() {
        assert!(Description::try_from("é".repeat(1_000)).is_ok());
        assert_eq!(Description::try_from("é".repeat(1_001)), Err(InvalidValue::TooLong));
        assert_eq!(Description::try_from("a\0b".to_owned()), Err(InvalidValue::Nul));
    }
}
