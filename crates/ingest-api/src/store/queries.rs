//! Reads rows and deletes them.

use deadpool_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::model::{Item, Owner, Transfer, User};
use crate::store::error::DatabaseError;
use crate::store::rows::{DeletableRow, StoredRow};
use crate::store::sql;

/// Runs a statement that selects all columns of some rows.
async fn select<R: StoredRow>(
    client: &Client,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<R>, DatabaseError> {
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, parameters).await?.iter().map(R::from_row).collect()
}

/// The rows with these ids, in any order. Ids without a row are left out.
pub(crate) async fn find_rows<R: StoredRow>(
    client: &Client,
    ids: &[Uuid],
) -> Result<Vec<R>, DatabaseError> {
    select(client, R::SQL.select, &[&ids]).await
}

/// The row with this id, or [`DatabaseError::NotFound`].
pub(crate) async fn find_row<R: StoredRow>(client: &Client, id: Uuid) -> Result<R, DatabaseError> {
    find_rows(client, &[id]).await?.pop().ok_or(DatabaseError::NotFound(R::NAME))
}

/// At most `limit` rows in the order of their ids, starting after the id `after`.
pub(crate) async fn list_rows<R: StoredRow>(
    client: &Client,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<R>, DatabaseError> {
    select(client, R::SQL.list, &[&after, &limit]).await
}

/// At most `limit` transfers of an item in the order of their times, starting after the transfer
/// `after`. Fails with [`DatabaseError::NotFound`] if there is no such item.
pub(crate) async fn list_transfers_of_item(
    client: &Client,
    item: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Transfer>, DatabaseError> {
    find_row::<Item>(client, item).await?;
    select(client, sql::TRANSFERS_OF_ITEM, &[&item, &after, &limit]).await
}

/// At most `limit` items that a user owns now, in the order of their ids, starting after the id
/// `after`. Fails with [`DatabaseError::NotFound`] if there is no such user.
pub(crate) async fn list_items_of_user(
    client: &Client,
    user: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Item>, DatabaseError> {
    find_row::<User>(client, user).await?;
    select(client, sql::ITEMS_OF_USER, &[&user, &after, &limit]).await
}

/// The current owner of an item. Fails with [`DatabaseError::NotFound`] if there is no such item.
pub(crate) async fn find_owner(client: &Client, item: Uuid) -> Result<Owner, DatabaseError> {
    let Item { id: item_id, .. } = find_row(client, item).await?;
    let latest: Option<Transfer> =
        select(client, sql::LATEST_TRANSFER_OF_ITEM, &[&item]).await?.pop();
    Ok(Owner {
        item_id,
        owner_id: latest.as_ref().map(|transfer| transfer.owner_id),
        transfer_id: latest.as_ref().map(|transfer| transfer.id),
        since: latest.map(|transfer| transfer.timestamp),
    })
}

/// Deletes the row with this id. Fails with [`DatabaseError::NotFound`] if there is none, and with
/// [`DatabaseError::HasTransfers`] if transfers refer to it.
pub(crate) async fn delete<R: DeletableRow>(
    client: &Client,
    id: Uuid,
) -> Result<(), DatabaseError> {
    let statement = client.prepare_cached(R::DELETE).await?;
    match client.execute(&statement, &[&id]).await {
        Ok(0) => Err(DatabaseError::NotFound(R::NAME)),
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            Err(DatabaseError::HasTransfers)
        }
        Err(error) => Err(error.into()),
    }
}
