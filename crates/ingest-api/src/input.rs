//! Parses what clients send into rows.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::{
    BaseItem, BaseItemId, Description, EventTime, Item, ItemId, NewRow, Transfer, TransferId, User,
    UserId,
};
use crate::rejection::Rejection;

/// A source of the current time, injected so that tests can set it.
pub type Clock = fn() -> OffsetDateTime;

/// What the service fills in or checks a row against.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The current time: the time of an event if the client sends none.
    pub now: OffsetDateTime,
    /// How far the time of an event may be ahead of `now`.
    pub ahead: Duration,
    /// The value of `Idempotency-Key`: the id of the row if the client sends none.
    pub key: Option<Uuid>,
    /// The number of the principal that sends the request.
    pub writer: Option<i32>,
}

impl Context {
    /// The id of a row, and whether the client gave it.
    fn id(self, given: Option<Uuid>) -> (Uuid, bool) {
        let given = given.or(self.key);
        (given.unwrap_or_else(Uuid::now_v7), given.is_some())
    }

    fn time(self, field: &str, given: Option<EventTime>) -> Result<EventTime, Rejection> {
        let wrong = |detail: String| Rejection::Field { field: field.to_owned(), detail };
        let Some(time) = given else {
            return EventTime::new(self.now).map_err(|error| wrong(error.to_string()));
        };
        if time.utc() > self.now.saturating_add(self.ahead) {
            let seconds = self.ahead.whole_seconds();
            return Err(wrong(format!("is more than {seconds} s ahead of the service's clock")));
        }
        Ok(time)
    }
}

/// A base item to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBaseItem {
    /// The id of the base item. If it is left out, the service generates one.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    id: Option<Uuid>,
    /// Describes the base item.
    description: Description,
}

/// A user to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The id of the user. If it is left out, the service generates one.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    id: Option<Uuid>,
}

/// An item to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    /// The id of the item. If it is left out, the service generates one.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    id: Option<Uuid>,
    /// The base item that this item is an instance of.
    base_item_id: BaseItemId,
    /// When the item was created. If it is left out, the current time is used.
    created_at: Option<EventTime>,
}

/// A transfer to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTransfer {
    /// The id of the transfer. If it is left out, the service generates one.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    id: Option<Uuid>,
    /// The item that is transferred.
    item_id: ItemId,
    /// The user who receives the item.
    owner_id: UserId,
    /// When the item was transferred. If it is left out, the current time is used.
    timestamp: Option<EventTime>,
}

impl NewTransfer {
    /// A transfer that happens now.
    pub const fn to(item_id: ItemId, owner_id: UserId) -> Self {
        Self { id: None, item_id, owner_id, timestamp: None }
    }
}

/// The new owner of an item.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOwner {
    /// The user who receives the item.
    pub to: UserId,
}

/// Refuses null. A producer that sends it has an id in mind, and has lost it: with a generated id,
/// a retry would count twice.
fn not_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Uuid>, D::Error> {
    Uuid::deserialize(from).map(Some)
}

/// A JSON object that describes a new row.
pub trait Input: DeserializeOwned + ToSchema {
    /// The type of that row.
    type Row;

    /// Fills in the fields that the client left out.
    ///
    /// # Errors
    /// The time of the event is too far ahead of the current time.
    fn into_row(self, context: Context) -> Result<NewRow<Self::Row>, Rejection>;
}

impl Input for NewBaseItem {
    type Row = BaseItem;

    fn into_row(self, context: Context) -> Result<NewRow<BaseItem>, Rejection> {
        let (id, id_given) = context.id(self.id);
        let row = BaseItem { id: BaseItemId(id), description: self.description };
        Ok(NewRow { row, id_given, time_given: false, written_by: context.writer })
    }
}

impl Input for NewUser {
    type Row = User;

    fn into_row(self, context: Context) -> Result<NewRow<User>, Rejection> {
        let (id, id_given) = context.id(self.id);
        Ok(NewRow {
            row: User { id: UserId(id) },
            id_given,
            time_given: false,
            written_by: context.writer,
        })
    }
}

impl Input for NewItem {
    type Row = Item;

    fn into_row(self, context: Context) -> Result<NewRow<Item>, Rejection> {
        let created_at = context.time("created_at", self.created_at)?;
        let (id, id_given) = context.id(self.id);
        let row = Item { id: ItemId(id), base_item_id: self.base_item_id, created_at };
        Ok(NewRow {
            row,
            id_given,
            time_given: self.created_at.is_some(),
            written_by: context.writer,
        })
    }
}

impl Input for NewTransfer {
    type Row = Transfer;

    fn into_row(self, context: Context) -> Result<NewRow<Transfer>, Rejection> {
        let timestamp = context.time("timestamp", self.timestamp)?;
        let (id, id_given) = context.id(self.id);
        let row = Transfer {
            id: TransferId(id),
            timestamp,
            owner_id: self.owner_id,
            item_id: self.item_id,
        };
        Ok(NewRow {
            row,
            id_given,
            time_given: self.timestamp.is_some(),
            written_by: context.writer,
        })
    }
}

/// Parses a body or a line, which must be one JSON object.
///
/// # Errors
/// [`Rejection::Malformed`], or [`Rejection::Field`] with the name of the field that is wrong.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Rejection> {
    // Some programs put a byte order mark before UTF-8. It means nothing.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // serde would accept an array as the values of the fields in order of declaration.
    if body.trim_ascii_start().starts_with(b"[")
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
    {
        return Err(Rejection::Field {
            field: "the body".to_owned(),
            detail: "must be a JSON object".to_owned(),
        });
    }
    // The path to a wrong field takes longer to follow than all else, and few bodies are wrong.
    serde_json::from_slice(body).or_else(|_| parse_naming_fields(body))
}

/// Parses a JSON object as [`parse`] does, but follows the path to each field.
fn parse_naming_fields<T: DeserializeOwned>(body: &[u8]) -> Result<T, Rejection> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().iter().next().map(|_| error.path().to_string());
        let inner = error.into_inner();
        if inner.is_syntax() || inner.is_eof() {
            return Rejection::Malformed(inner.to_string());
        }
        let detail = inner.to_string();
        // The path does not have the name of a field that is missing or repeated. serde's message
        // has it, between backquotes.
        let in_message =
            detail.starts_with("missing field") || detail.starts_with("duplicate field");
        let named = detail.split('`').nth(1).filter(|_| in_message).map(str::to_owned);
        let field = named.or(path).unwrap_or_else(|| "the body".to_owned());
        Rejection::Field { field, detail }
    })?;
    json.end().map_err(|error| Rejection::Malformed(error.to_string()))?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(body: &str) -> Option<String> {
        let rejection = parse::<NewItem>(body.as_bytes()).unwrap_err();
        rejection.field().map(str::to_owned)
    }

    #[test]
    fn a_refused_body_names_the_field_that_is_wrong() {
        assert_eq!(field("{}").as_deref(), Some("base_item_id"));
        assert_eq!(field(r#"{"base_item_id": 7}"#).as_deref(), Some("base_item_id"));
        assert_eq!(field(r#"{"colour": 7}"#).as_deref(), Some("colour"));
        assert_eq!(field(r#"{"created_at": "infinity"}"#).as_deref(), Some("created_at"));
        assert_eq!(field(r#"{"id": null, "id": null}"#).as_deref(), Some("id"));
        assert_eq!(field(r#"{".": 7}"#).as_deref(), Some("."));
        assert_eq!(field("7").as_deref(), Some("the body"));
        assert_eq!(field("{").as_deref(), None);
        assert_eq!(field("{} {}").as_deref(), Some("base_item_id"));
    }
}
