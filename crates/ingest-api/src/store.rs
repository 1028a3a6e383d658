//! All SQL of this service.
//!
//! Writes take slices, so that one statement may carry a single request's row, a chunk of an upload, or what
//! many requests have queued up.
//!
//! Invariant: what is answered is committed. Each statement is a transaction of its own, and every insert can be
//! repeated without harm.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Client;
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, Rejection};
use crate::model::{BaseItem, Description, EventTime, Item, New, Owner, Transfer, User};

/// How often an insert is tried again whose parents vanished, or which met another one in another order.
const ATTEMPTS: usize = 5;

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<R> {
    /// It was stored.
    Created(R),
    /// It was there already, with the same content.
    Repeated(R),
    /// It was not stored.
    Rejected(Rejection),
}

/// A row of one of the tables.
pub trait Resource: Clone + Serialize + ToSchema + Send + Sync + 'static {
    /// The table.
    const TABLE: &'static str;
    /// What the path calls the collection.
    const PATH: &'static str;
    /// What messages call one of them.
    const NAME: &'static str;

    /// Its id.
    fn id(&self) -> Uuid;
    /// The rows that it refers to: field, table, id.
    fn references(&self) -> Vec<(&'static str, &'static str, Uuid)>;
    /// Whether a stored row has the same content.
    fn same(new: &New<Self>, stored: &Self) -> bool;
    /// Reads it from a row of all columns.
    ///
    /// # Errors
    /// The columns are others.
    fn read(row: &Row) -> Result<Self, ApiError>;
    /// The insert of `rows` as one statement, which returns the ids of those that were stored: not of those
    /// whose id is taken or whose parents are missing.
    fn insert(rows: &[&New<Self>]) -> (&'static str, Vec<Box<dyn ToSql + Sync + Send>>);
}

fn column<T>(rows: &[&New<T>], value: impl Fn(&T) -> Uuid) -> Box<dyn ToSql + Sync + Send> {
    Box::new(rows.iter().map(|new| value(&new.row)).collect::<Vec<Uuid>>())
}

fn stored_time(row: &Row, name: &str) -> Result<EventTime, ApiError> {
    // The table's check allows no other.
    EventTime::new(row.try_get(name)?).map_err(|error| ApiError::Unavailable(Some(Box::new(error))))
}

impl Resource for BaseItem {
    const TABLE: &'static str = "public.base_items";
    const PATH: &'static str = "/base-items";
    const NAME: &'static str = "base item";

    fn id(&self) -> Uuid {
        self.id.into()
    }

    fn references(&self) -> Vec<(&'static str, &'static str, Uuid)> {
        Vec::new()
    }

    fn same(new: &New<Self>, stored: &Self) -> bool {
        new.row == *stored
    }

    fn read(row: &Row) -> Result<Self, ApiError> {
        let description = Description::try_from(row.try_get::<_, String>("description")?);
        let description = description.map_err(|error| ApiError::Unavailable(Some(Box::new(error))))?;
        Ok(Self { id: row.try_get::<_, Uuid>("id")?.into(), description })
    }

    fn insert(rows: &[&New<Self>]) -> (&'static str, Vec<Box<dyn ToSql + Sync + Send>>) {
        let texts: Vec<String> = rows.iter().map(|new| new.row.description.as_str().to_owned()).collect();
        let sql = "INSERT INTO public.base_items (id, description) \
             SELECT * FROM unnest($1::uuid[], $2::text[]) ON CONFLICT (id) DO NOTHING RETURNING id";
        (sql, vec![column(rows, |row| row.id.into()), Box::new(texts)])
    }
}

impl Resource for User {
    const TABLE: &'static str = "public.users";
    const PATH: &'static str = "/users";
    const NAME: &'static str = "user";

    fn id(&self) -> Uuid {
        self.id.into()
    }

    fn references(&self) -> Vec<(&'static str, &'static str, Uuid)> {
        Vec::new()
    }

    fn same(_: &New<Self>, _: &Self) -> bool {
        true
    }

    fn read(row: &Row) -> Result<Self, ApiError> {
        Ok(Self { id: row.try_get::<_, Uuid>("id")?.into() })
    }

    fn insert(rows: &[&New<Self>]) -> (&'static str, Vec<Box<dyn ToSql + Sync + Send>>) {
        let sql = "INSERT INTO public.users (id) SELECT * FROM unnest($1::uuid[]) \
             ON CONFLICT (id) DO NOTHING RETURNING id";
        (sql, vec![column(rows, |row| row.id.into())])
    }
}

impl Resource for Item {
    const TABLE: &'static str = "public.items";
    const PATH: &'static str = "/items";
    const NAME: &'static str = "item";

    fn id(&self) -> Uuid {
        self.id.into()
    }

    fn references(&self) -> Vec<(&'static str, &'static str, Uuid)> {
        vec![("base_item_id", BaseItem::TABLE, self.base_item_id.into())]
    }

    fn same(new: &New<Self>, stored: &Self) -> bool {
        let same_time = !new.time_given || new.row.created_at == stored.created_at;
        new.row.base_item_id == stored.base_item_id && same_time
    }

    fn read(row: &Row) -> Result<Self, ApiError> {
        Ok(Self {
            id: row.try_get::<_, Uuid>("id")?.into(),
            base_item_id: row.try_get::<_, Uuid>("base_item_id")?.into(),
            created_at: stored_time(row, "created_at")?,
        })
    }

    fn insert(rows: &[&New<Self>]) -> (&'static str, Vec<Box<dyn ToSql + Sync + Send>>) {
        let times: Vec<_> = rows.iter().map(|new| new.row.created_at.utc()).collect();
        let sql = "INSERT INTO public.items (id, base_item_id, created_at) \
             SELECT new.id, new.base_item_id, new.created_at \
             FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS new (id, base_item_id, created_at) \
             JOIN public.base_items ON base_items.id = new.base_item_id \
             ON CONFLICT (id) DO NOTHING RETURNING id";
        (
            sql,
            vec![
                column(rows, |row| row.id.into()),
                column(rows, |row| row.base_item_id.into()),
                Box::new(times),
            ],
        )
    }
}

impl Resource for Transfer {
    const TABLE: &'static str = "public.transfers";
    const PATH: &'static str = "/transfers";
    const NAME: &'static str = "transfer";

    fn id(&self) -> Uuid {
        self.id.into()
    }

    fn references(&self) -> Vec<(&'static str, &'static str, Uuid)> {
        vec![("item_id", Item::TABLE, self.item_id.into()), ("owner_id", User::TABLE, self.owner_id.into())]
    }

    fn same(new: &New<Self>, stored: &Self) -> bool {
        let same_time = !new.time_given || new.row.timestamp == stored.timestamp;
        new.row.item_id == stored.item_id && new.row.owner_id == stored.owner_id && same_time
    }

    fn read(row: &Row) -> Result<Self, ApiError> {
        Ok(Self {
            id: row.try_get::<_, Uuid>("id")?.into(),
            timestamp: stored_time(row, "timestamp")?,
            owner_id: row.try_get::<_, Uuid>("owner_id")?.into(),
            item_id: row.try_get::<_, Uuid>("item_id")?.into(),
        })
    }

    fn insert(rows: &[&New<Self>]) -> (&'static str, Vec<Box<dyn ToSql + Sync + Send>>) {
        let times: Vec<_> = rows.iter().map(|new| new.row.timestamp.utc()).collect();
        let sql = "INSERT INTO public.transfers (id, \"timestamp\", owner_id, item_id) \
             SELECT new.id, new.at, new.owner_id, new.item_id \
             FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[]) AS new (id, at, owner_id, item_id) \
             JOIN public.users ON users.id = new.owner_id JOIN public.items ON items.id = new.item_id \
             ON CONFLICT (id) DO NOTHING RETURNING id";
        let (owners, items) =
            (column(rows, |row| row.owner_id.into()), column(rows, |row| row.item_id.into()));
        (sql, vec![column(rows, |row| row.id.into()), Box::new(times), owners, items])
    }
}

/// Stores rows, and tells of each what became of it, in their order.
///
/// Of rows of the same id the first is sent, and the others are judged by the row that is stored then: as if all of them had
/// been sent at that moment, one after another. Whoever deletes that row meanwhile has done so afterwards, as far as
/// anybody can tell. So it takes a few statements, however often an id comes.
///
/// # Errors
/// The database; rows of this slice may then have been stored, and the same call again will say so.
pub async fn insert<R: Resource>(client: &Client, rows: &[New<R>]) -> Result<Vec<Outcome<R>>, ApiError> {
    let mut outcomes: Vec<Option<Outcome<R>>> = vec![None; rows.len()];
    let mut open: Vec<usize> = (0..rows.len()).collect();
    let mut attempts = 0;
    while !open.is_empty() {
        let mut ids = HashSet::new();
        let mut first: Vec<usize> =
            open.iter().copied().filter(|place| ids.insert(rows[*place].row.id())).collect();
        // In the order of their ids: two statements that meet then wait for each other in one direction only.
        first.sort_unstable_by_key(|place| rows[*place].row.id());
        insert_round(client, rows, &first, &open, &mut outcomes).await?;
        // Of these nothing can be said yet: a row that was in the way, or a parent, vanished or appeared between the
        // statements.
        if first.iter().all(|place| outcomes[*place].is_some()) {
            attempts = 0;
        } else {
            attempts += 1;
            if attempts >= ATTEMPTS {
                return Err(ApiError::Unavailable(None));
            }
        }
        open.retain(|place| outcomes[*place].is_none());
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// One statement for the `first` row of each id, and what that and the database say of all that are `open`.
async fn insert_round<R: Resource>(
    client: &Client,
    rows: &[New<R>],
    first: &[usize],
    open: &[usize],
    outcomes: &mut [Option<Outcome<R>>],
) -> Result<(), ApiError> {
    let new: Vec<&New<R>> = first.iter().map(|place| &rows[*place]).collect();
    let (sql, parameters) = R::insert(&new);
    let statement = client.prepare_cached(sql).await?;
    let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| &**value as _).collect();
    let created = match client.query(&statement, &parameters).await {
        Ok(created) => created,
        // A parent was deleted while the statement ran, or two statements waited for each other after all:
        // nothing was stored.
        Err(error)
            if matches!(
                error.code(),
                Some(&SqlState::FOREIGN_KEY_VIOLATION | &SqlState::T_R_DEADLOCK_DETECTED)
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let created: HashSet<Uuid> = created.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let (created, left): (Vec<usize>, Vec<usize>) =
        first.iter().partition(|place| created.contains(&rows[**place].row.id()));
    let mut stored: HashMap<Uuid, R> = HashMap::new();
    for place in created {
        let row = &rows[place].row;
        stored.insert(row.id(), row.clone());
        outcomes[place] = Some(Outcome::Created(row.clone()));
    }
    if !left.is_empty() {
        let ids: Vec<Uuid> = left.iter().map(|place| rows[*place].row.id()).collect();
        stored.extend(fetch::<R>(client, &ids).await?.into_iter().map(|row| (row.id(), row)));
    }
    let mut without: Vec<usize> = Vec::new();
    for place in open.iter().copied().filter(|place| outcomes[*place].is_none()).collect::<Vec<_>>() {
        let new = &rows[place];
        match stored.get(&new.row.id()) {
            Some(row) if R::same(new, row) => outcomes[place] = Some(Outcome::Repeated(row.clone())),
            Some(_) => outcomes[place] = Some(Outcome::Rejected(Rejection::Conflict)),
            None => without.push(place),
        }
    }
    // Also of rows that were not sent: else many of one id, each with another unknown parent, would be sent one by one.
    let missing = missing_parents(client, without.iter().map(|place| &rows[*place].row)).await?;
    for place in without {
        let unknown =
            rows[place].row.references().into_iter().find(|(_, table, id)| missing.contains(&(*table, *id)));
        outcomes[place] = unknown.map(|(field, ..)| Outcome::Rejected(Rejection::UnknownReference { field }));
    }
    Ok(())
}

/// Which of the rows that these refer to do not exist: table, id.
async fn missing_parents<R: Resource>(
    client: &Client,
    rows: impl Iterator<Item = &R>,
) -> Result<HashSet<(&'static str, Uuid)>, ApiError> {
    let mut wanted: HashMap<&'static str, HashSet<Uuid>> = HashMap::new();
    for (_, table, id) in rows.flat_map(R::references) {
        wanted.entry(table).or_default().insert(id);
    }
    let mut missing = HashSet::new();
    for (table, wanted) in wanted {
        let there = client.prepare_cached(&format!("SELECT id FROM {table} WHERE id = ANY ($1)")).await?;
        let wanted: Vec<Uuid> = wanted.into_iter().collect();
        let there = client.query(&there, &[&wanted]).await?;
        let there: HashSet<Uuid> = there.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        missing.extend(wanted.into_iter().filter(|id| !there.contains(id)).map(|id| (table, id)));
    }
    Ok(missing)
}

/// The rows of these ids that there are, in no order.
///
/// # Errors
/// The database.
pub async fn fetch<R: Resource>(client: &Client, ids: &[Uuid]) -> Result<Vec<R>, ApiError> {
    let sql = format!("SELECT * FROM {} WHERE id = ANY ($1)", R::TABLE);
    let statement = client.prepare_cached(&sql).await?;
    client.query(&statement, &[&ids]).await?.iter().map(R::read).collect()
}

/// The row of an id.
///
/// # Errors
/// [`ApiError::NotFound`], or the database.
pub async fn find<R: Resource>(client: &Client, id: Uuid) -> Result<R, ApiError> {
    fetch(client, &[id]).await?.pop().ok_or(ApiError::NotFound(R::NAME))
}

/// Rows in the order of their ids, from the one past `after`.
///
/// # Errors
/// The database.
pub async fn list<R: Resource>(client: &Client, after: Option<Uuid>, limit: i64) -> Result<Vec<R>, ApiError> {
    let sql = format!("SELECT * FROM {} WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2", R::TABLE);
    let statement = client.prepare_cached(&sql).await?;
    client.query(&statement, &[&after, &limit]).await?.iter().map(R::read).collect()
}

/// An item's transfers in the order they happened, from the one past `after`.
///
/// # Errors
/// [`ApiError::NotFound`] where there is no such item, or the database.
pub async fn transfers_of(
    client: &Client,
    item: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Transfer>, ApiError> {
    find::<Item>(client, item).await?;
    let sql = "SELECT * FROM public.transfers WHERE item_id = $1 AND ($2::uuid IS NULL OR (\"timestamp\", id) > \
         (SELECT \"timestamp\", id FROM public.transfers WHERE id = $2)) ORDER BY \"timestamp\", id LIMIT $3";
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, &[&item, &after, &limit]).await?.iter().map(Transfer::read).collect()
}

/// The items that a user owns now, in the order of their ids, from the one past `after`.
///
/// # Errors
/// [`ApiError::NotFound`] where there is no such user, or the database.
pub async fn items_of(
    client: &Client,
    user: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Item>, ApiError> {
    find::<User>(client, user).await?;
    let sql = "SELECT items.* FROM (SELECT DISTINCT item_id FROM public.transfers \
         WHERE owner_id = $1 AND ($2::uuid IS NULL OR item_id > $2)) AS given \
         JOIN public.items ON items.id = given.item_id \
         CROSS JOIN LATERAL (SELECT owner_id FROM public.transfers WHERE item_id = given.item_id \
         ORDER BY \"timestamp\" DESC, id DESC LIMIT 1) AS latest \
         WHERE latest.owner_id = $1 ORDER BY items.id LIMIT $3";
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, &[&user, &after, &limit]).await?.iter().map(Item::read).collect()
}

/// Who owns an item now.
///
/// # Errors
/// [`ApiError::NotFound`] where there is no such item, or the database.
pub async fn owner_of(client: &Client, item: Uuid) -> Result<Owner, ApiError> {
    let Item { id: item_id, .. } = find(client, item).await?;
    let sql =
        "SELECT * FROM public.transfers WHERE item_id = $1 ORDER BY \"timestamp\" DESC, id DESC LIMIT 1";
    let statement = client.prepare_cached(sql).await?;
    let latest = client.query_opt(&statement, &[&item]).await?.as_ref().map(Transfer::read).transpose()?;
    Ok(Owner {
        item_id,
        owner_id: latest.as_ref().map(|transfer| transfer.owner_id),
        transfer_id: latest.as_ref().map(|transfer| transfer.id),
        since: latest.map(|transfer| transfer.timestamp),
    })
}

/// Deletes a row.
///
/// # Errors
/// [`ApiError::NotFound`], [`ApiError::HasTransfers`], or the database.
pub async fn delete<R: Resource>(client: &Client, id: Uuid) -> Result<(), ApiError> {
    let statement = client.prepare_cached(&format!("DELETE FROM {} WHERE id = $1", R::TABLE)).await?;
    match client.execute(&statement, &[&id]).await {
        Ok(0) => Err(ApiError::NotFound(R::NAME)),
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => Err(ApiError::HasTransfers),
        Err(error) => Err(error.into()),
    }
}
