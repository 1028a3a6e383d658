//! What callers send, parsed into rows.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::Rejection;
use crate::model::{BaseItem, BaseItemId, Description, EventTime, Item, ItemId, New, Transfer, User, UserId};

/// What a row takes from its surroundings where the caller left it out.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The service's time.
    pub now: OffsetDateTime,
    /// How far the time of an event may lie ahead of it.
    pub ahead: Duration,
    /// The value of `Idempotency-Key`.
    pub key: Option<Uuid>,
}

impl Context {
    fn id(self, given: Option<Uuid>) -> Uuid {
        given.or(self.key).unwrap_or_else(Uuid::now_v7)
    }

    fn time(self, field: &str, given: Option<EventTime>) -> Result<EventTime, Rejection> {
        let wrong = |detail: String| Rejection::Field { field: field.to_owned(), detail };
        let Some(time) = given else {
            return EventTime::new(self.now).map_err(|error| wrong(error.to_string()));
        };
        if time.utc() > self.now.saturating_add(self.ahead) {
            let seconds = self.ahead.whole_seconds();
            return Err(wrong(format!("lies more than {seconds} s ahead of the service's clock")));
        }
        Ok(time)
    }
}

/// A base item to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBaseItem {
    /// Identifies it; a new one is made where it is left out.
    id: Option<Uuid>,
    /// Says what it is.
    description: Description,
}

/// A user to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Identifies them; a new one is made where it is left out.
    id: Option<Uuid>,
}

/// An item to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    /// Identifies it; a new one is made where it is left out.
    id: Option<Uuid>,
    /// What it is an instance of.
    base_item_id: BaseItemId,
    /// When it was created; now where it is left out.
    created_at: Option<EventTime>,
}

/// A transfer to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTransfer {
    /// Identifies it; a new one is made where it is left out.
    id: Option<Uuid>,
    /// The item.
    item_id: ItemId,
    /// The user that the item passes to.
    owner_id: UserId,
    /// When it happened; now where it is left out.
    timestamp: Option<EventTime>,
}

impl NewTransfer {
    /// The item passing to a user now.
    #[must_use]
    pub const fn to(item_id: ItemId, owner_id: UserId) -> Self {
        Self { id: None, item_id, owner_id, timestamp: None }
    }
}

/// The next owner of an item.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOwner {
    /// The user that the item passes to.
    pub to: UserId,
}

/// A body that becomes a row.
pub trait Input: DeserializeOwned + ToSchema {
    /// The row.
    type Row;

    /// Fills in what was left out.
    ///
    /// # Errors
    /// A value is one that it cannot be just now.
    fn into_row(self, context: Context) -> Result<New<Self::Row>, Rejection>;
}

impl Input for NewBaseItem {
    type Row = BaseItem;

    fn into_row(self, context: Context) -> Result<New<BaseItem>, Rejection> {
        let row = BaseItem { id: context.id(self.id).into(), description: self.description };
        Ok(New { row, time_given: false })
    }
}

impl Input for NewUser {
    type Row = User;

    fn into_row(self, context: Context) -> Result<New<User>, Rejection> {
        Ok(New { row: User { id: context.id(self.id).into() }, time_given: false })
    }
}

impl Input for NewItem {
    type Row = Item;

    fn into_row(self, context: Context) -> Result<New<Item>, Rejection> {
        let created_at = context.time("created_at", self.created_at)?;
        let row = Item { id: context.id(self.id).into(), base_item_id: self.base_item_id, created_at };
        Ok(New { row, time_given: self.created_at.is_some() })
    }
}

impl Input for NewTransfer {
    type Row = Transfer;

    fn into_row(self, context: Context) -> Result<New<Transfer>, Rejection> {
        let timestamp = context.time("timestamp", self.timestamp)?;
        let (id, owner_id, item_id) = (context.id(self.id).into(), self.owner_id, self.item_id);
        Ok(New { row: Transfer { id, timestamp, owner_id, item_id }, time_given: self.timestamp.is_some() })
    }
}

/// Parses a body, and names the field that is wrong.
///
/// # Errors
/// [`Rejection`]: malformed JSON, or a field.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Rejection> {
    // serde would read an array as the fields in their order, which nobody means.
    if body.trim_ascii_start().starts_with(b"[")
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
    {
        let (field, detail) = ("the body".to_owned(), "must be a JSON object".to_owned());
        return Err(Rejection::Field { field, detail });
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().iter().next().map(|_| error.path().to_string());
        let inner = error.into_inner();
        if inner.is_syntax() || inner.is_eof() {
            return Rejection::Malformed(inner.to_string());
        }
        let detail = inner.to_string();
        // Of a field that is missing, or there twice, only the message knows the name, which serde writes between
        // backquotes.
        let of_field = detail.starts_with("missing field") || detail.starts_with("duplicate field");
        let named = detail.split('`').nth(1).filter(|_| of_field).map(str::to_owned);
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
    fn what_is_wrong_is_named() {
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
