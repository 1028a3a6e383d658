//! The rows, and the types of their fields.
//!
//! Invariant: a value of these types can be stored. Parsing refuses what Postgres or RFC 3339
//! cannot hold (a NUL in a text, a year before 1 or after 9999), and cuts times to microseconds,
//! which is what Postgres keeps.

use std::fmt;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;
use uuid::Uuid;

/// The maximum length of a description. The constraint `base_items_description_length` has the same
/// bound.
pub const DESCRIPTION_CHARACTERS: usize = 1_000;

/// The id of a base item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct BaseItemId(pub Uuid);

/// The id of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct UserId(pub Uuid);

/// The id of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct ItemId(pub Uuid);

/// The id of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct TransferId(pub Uuid);

/// Why a value cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// A description has more than [`DESCRIPTION_CHARACTERS`].
    #[error("must have at most {DESCRIPTION_CHARACTERS} characters")]
    TooLong,
    /// A text contains U+0000, which the type text of Postgres cannot hold.
    #[error("must not contain the character NUL")]
    Nul,
    /// Not an RFC 3339 time.
    #[error("must be an RFC 3339 time, such as 2026-11-23T09:37:00.123Z")]
    NotRfc3339,
    /// Outside the years that RFC 3339 can write in UTC.
    #[error("must be within the years 1 to 9999 in UTC")]
    OutOfRange,
}

/// Describes a base item. Any character except NUL (U+0000) is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, max_length = 1000, pattern = r"^[^\u0000]*$", examples("a bicycle"))]
pub struct Description(String);

impl Description {
    /// Borrows the text.
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

/// The time of an event, within the years 1 to 9999 in UTC. Digits beyond microseconds are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-11-23T09:37:00.123456Z"))]
pub struct EventTime(OffsetDateTime);

impl EventTime {
    /// Converts `time` to UTC and cuts it to microseconds.
    ///
    /// # Errors
    /// [`InvalidValue::OutOfRange`] if the year in UTC is not 1 to 9999.
    pub fn new(time: OffsetDateTime) -> Result<Self, InvalidValue> {
        let time = time.checked_to_offset(UtcOffset::UTC).ok_or(InvalidValue::OutOfRange)?;
        let first = datetime!(0001-01-01 0:00 UTC);
        let time =
            time.replace_microsecond(time.microsecond()).map_err(|_| InvalidValue::OutOfRange)?;
        if time < first { Err(InvalidValue::OutOfRange) } else { Ok(Self(time)) }
    }

    /// The time in UTC.
    pub const fn utc(self) -> OffsetDateTime {
        self.0
    }
}

impl FromStr for EventTime {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidValue::NotRfc3339)?;
        Self::new(time)
    }
}

/// Parses the text in place, because an upload has one for each line.
impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = EventTime;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<EventTime, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.format(&Rfc3339).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

/// A row as clients see it: it has an id and a path.
pub trait Resource: Clone + Serialize + ToSchema + Send + Sync + 'static {
    /// The path of the collection.
    const PATH: &'static str;
    /// The singular name that messages use.
    const NAME: &'static str;

    /// The id of this row.
    fn id(&self) -> Uuid;
}

/// A kind of thing that items are instances of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BaseItem {
    /// The id of the base item.
    pub id: BaseItemId,
    /// Describes the base item.
    pub description: Description,
}

impl Resource for BaseItem {
    const PATH: &'static str = "/base-items";
    const NAME: &'static str = "base item";

    fn id(&self) -> Uuid {
        self.id.0
    }
}

/// A user, who can own items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct User {
    /// The id of the user.
    pub id: UserId,
}

impl Resource for User {
    const PATH: &'static str = "/users";
    const NAME: &'static str = "user";

    fn id(&self) -> Uuid {
        self.id.0
    }
}

/// An item. Its creation is an event of the metric `item-creation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Item {
    /// The id of the item.
    pub id: ItemId,
    /// The base item that this item is an instance of.
    pub base_item_id: BaseItemId,
    /// When the item was created.
    pub created_at: EventTime,
}

impl Resource for Item {
    const PATH: &'static str = "/items";
    const NAME: &'static str = "item";

    fn id(&self) -> Uuid {
        self.id.0
    }
}

/// A transfer of an item to a user, which is an event of the metric `transfers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Transfer {
    /// The id of the transfer.
    pub id: TransferId,
    /// When the item was transferred.
    pub timestamp: EventTime,
    /// The user who received the item.
    pub owner_id: UserId,
    /// The item that was transferred.
    pub item_id: ItemId,
}

impl Resource for Transfer {
    const PATH: &'static str = "/transfers";
    const NAME: &'static str = "transfer";

    fn id(&self) -> Uuid {
        self.id.0
    }
}

/// The current owner of an item. All fields but `item_id` are null if the item was never
/// transferred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Owner {
    /// The item.
    pub item_id: ItemId,
    /// The user who owns the item now.
    #[schema(required)]
    pub owner_id: Option<UserId>,
    /// The latest transfer of the item.
    #[schema(required)]
    pub transfer_id: Option<TransferId>,
    /// When that transfer happened.
    #[schema(required)]
    pub since: Option<EventTime>,
}

/// A row to insert.
#[derive(Debug, Clone)]
pub struct NewRow<R> {
    /// The row, with the fields filled in that the client left out.
    pub row: R,
    /// Whether the client sent the id, in the body or as `Idempotency-Key`.
    pub id_given: bool,
    /// Whether the client sent the time. If it did not, the time that the service filled in is not
    /// compared with the stored row when the same id is posted again.
    pub time_given: bool,
    /// The number of the principal that writes it. It is not compared with the stored row.
    pub written_by: Option<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Result<EventTime, InvalidValue> {
        text.parse()
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
