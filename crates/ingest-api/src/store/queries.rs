//! Reads rows and deletes them.

use postgres_kit::database::{Parameter, Session};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::model::{Item, Owner, Transfer, User};
use crate::store::error::DatabaseError;
use crate::store::rows::{DeletableRow, StoredRow, column};
use crate::store::sql;

/// A part of the items that a user owns now, in the order of their ids.
#[derive(Debug)]
pub(crate) struct OwnedItems {
    /// The items that were found.
    pub(crate) items: Vec<Item>,
    /// The last item that was examined, if the search ended there although more may follow.
    pub(crate) ended_at: Option<Uuid>,
}

/// Runs a statement that selects all columns of some rows.
async fn select<R: StoredRow>(
    session: &Session,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<R>, DatabaseError> {
    session.query(sql, parameters).await?.iter().map(R::from_row).collect()
}

/// The first id of a page, or nothing if no id is greater than `after`.
///
/// A statement whose condition is `id >= $1` uses the index with any plan. One that also allows a
/// null would read all rows before the page if Postgres plans it without the value.
fn first_id(after: Option<Uuid>) -> Option<Uuid> {
    match after {
        None => Some(Uuid::nil()),
        Some(after) => after.as_u128().checked_add(1).map(Uuid::from_u128),
    }
}

/// The rows with these ids, in any order. Ids without a row are left out.
pub(crate) async fn find_rows<R: StoredRow>(
    session: &Session,
    ids: &[Uuid],
) -> Result<Vec<R>, DatabaseError> {
    select(session, R::SQL.select, &[(&ids, Type::UUID_ARRAY)]).await
}

/// The row with this id, or [`DatabaseError::NotFound`].
pub(crate) async fn find_row<R: StoredRow>(
    session: &Session,
    id: Uuid,
) -> Result<R, DatabaseError> {
    find_rows(session, &[id]).await?.pop().ok_or(DatabaseError::NotFound(R::NAME))
}

/// At most `limit` rows in the order of their ids, starting after the id `after`.
pub(crate) async fn list_rows<R: StoredRow>(
    session: &Session,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<R>, DatabaseError> {
    let Some(first) = first_id(after) else { return Ok(Vec::new()) };
    select(session, R::SQL.list, &[(&first, Type::UUID), (&limit, Type::INT8)]).await
}

/// At most `limit` transfers of an item in the order of their times, starting after the transfer
/// `after`. Fails with [`DatabaseError::NotFound`] if there is no such item.
pub(crate) async fn list_transfers_of_item(
    session: &Session,
    item: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Transfer>, DatabaseError> {
    find_row::<Item>(session, item).await?;
    let parameters: [Parameter<'_>; 3] =
        [(&item, Type::UUID), (&after, Type::UUID), (&limit, Type::INT8)];
    select(session, sql::TRANSFERS_OF_ITEM, &parameters).await
}

/// At most `limit` items that a user owns now, in the order of their ids, starting after the id
/// `after`. Fails with [`DatabaseError::NotFound`] if there is no such user.
///
/// Examines at most `max_examined` of the items that the user ever received: a user may have passed
/// on any number of them, and one request must not read them all.
pub(crate) async fn list_items_of_user(
    session: &Session,
    user: Uuid,
    after: Option<Uuid>,
    limit: i64,
    max_examined: i64,
) -> Result<OwnedItems, DatabaseError> {
    find_row::<User>(session, user).await?;
    let mut owned = OwnedItems { items: Vec::new(), ended_at: None };
    let Some(first) = first_id(after) else { return Ok(owned) };
    let parameters: [Parameter<'_>; 4] = [
        (&user, Type::UUID),
        (&first, Type::UUID),
        (&limit, Type::INT8),
        (&max_examined, Type::INT8),
    ];
    for row in session.query(sql::ITEMS_OF_USER, &parameters).await? {
        if column(&row, "owned")? {
            owned.items.push(Item::from_row(&row)?);
        }
        if column(&row, "ended")? {
            owned.ended_at = Some(column(&row, "id")?);
        }
    }
    Ok(owned)
}

/// The current owner of an item. Fails with [`DatabaseError::NotFound`] if there is no such item.
pub(crate) async fn find_owner(session: &Session, item: Uuid) -> Result<Owner, DatabaseError> {
    let Item { id: item_id, .. } = find_row(session, item).await?;
    let latest: Option<Transfer> =
        select(session, sql::LATEST_TRANSFER_OF_ITEM, &[(&item, Type::UUID)]).await?.pop();
    Ok(Owner {
        item_id,
        owner_id: latest.as_ref().map(|transfer| transfer.owner_id),
        transfer_id: latest.as_ref().map(|transfer| transfer.id),
        since: latest.map(|transfer| transfer.timestamp),
    })
}

/// Who deletes a row.
#[derive(Debug, Clone)]
pub(crate) struct DeletedBy {
    /// The number of the principal.
    pub(crate) principal: Option<i32>,
    /// The id of the request.
    pub(crate) request: String,
}

/// Deletes the row with this id, and records who did it in the same statement. Fails with
/// [`DatabaseError::NotFound`] if there is none, and with [`DatabaseError::HasTransfers`] if
/// transfers refer to it.
pub(crate) async fn delete<R: DeletableRow>(
    session: &Session,
    id: Uuid,
    by: &DeletedBy,
) -> Result<(), DatabaseError> {
    let parameters: [Parameter<'_>; 3] =
        [(&id, Type::UUID), (&by.principal, Type::INT4), (&by.request, Type::TEXT)];
    match session.execute(R::DELETE, &parameters).await {
        Ok(0) => Err(DatabaseError::NotFound(R::NAME)),
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            Err(DatabaseError::HasTransfers)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_at_the_next_id() {
        let id = |number| Uuid::from_u128(number);
        assert_eq!(first_id(None), Some(id(0)));
        assert_eq!(first_id(Some(id(0xff))), Some(id(0x100)));
        assert_eq!(first_id(Some(Uuid::max())), None);
    }
}
