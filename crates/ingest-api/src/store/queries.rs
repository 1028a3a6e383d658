//! Reads rows and deletes them.

use deadpool_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::model::{Item, Owner, Transfer, User};
use crate::store::error::StoreError;
use crate::store::rows::{DeletableRow, StoredRow};
use crate::store::sql;

/// The rows with these ids, in any order. Ids without a row are left out.
pub(crate) async fn find_rows<R: StoredRow>(
    client: &Client,
    ids: &[Uuid],
) -> Result<Vec<R>, StoreError> {
    let statement = client.prepare_cached(R::SQL.select).await?;
    client.query(&statement, &[&ids]).await?.iter().map(R::from_row).collect()
}

/// The row with this id, or [`StoreError::NotFound`].
pub(crate) async fn find_row<R: StoredRow>(client: &Client, id: Uuid) -> Result<R, StoreError> {
    find_rows(client, &[id]).await?.pop().ok_or(StoreError::NotFound(R::NAME))
}

/// At most `limit` rows in the order of their ids, starting after the id `after`.
pub(crate) async fn list_rows<R: StoredRow>(
    client: &Client,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<R>, StoreError> {
    let statement = client.prepare_cached(R::SQL.list).await?;
    client.query(&statement, &[&after, &limit]).await?.iter().map(R::from_row).collect()
}

/// At most `limit` transfers of an item in the order of their times, starting after the transfer
/// `after`. Fails with [`StoreError::NotFound`] if there is no such item.
pub(crate) async fn list_transfers_of_item(
    client: &Client,
    item: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Transfer>, StoreError> {
    find_row::<Item>(client, item).await?;
    let statement = client.prepare_cached(sql::TRANSFERS_OF_ITEM).await?;
    client
        .query(&statement, &[&item, &after, &limit])
        .await?
        .iter()
        .map(Transfer::from_row)
        .collect()
}

/// At most `limit` items that a user owns now, in the order of their ids, starting after the id
/// `after`. Fails with [`StoreError::NotFound`] if there is no such user.
pub(crate) async fn list_items_of_user(
    client: &Client,
    user: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Item>, StoreError> {
    find_row::<User>(client, user).await?;
    let statement = client.prepare_cached(sql::ITEMS_OF_USER).await?;
    client.query(&statement, &[&user, &after, &limit]).await?.iter().map(Item::from_row).collect()
}

/// The current owner of an item. Fails with [`StoreError::NotFound`] if there is no such item.
pub(crate) async fn find_owner(client: &Client, item: Uuid) -> Result<Owner, StoreError> {
    let Item { id: item_id, .. } = find_row(client, item).await?;
    let statement = client.prepare_cached(sql::LATEST_TRANSFER_OF_ITEM).await?;
    let latest = client.query_opt(&statement, &[&item]).await?;
    let latest = latest.as_ref().map(Transfer::from_row).transpose()?;
    Ok(Owner {
        item_id,
        owner_id: latest.as_ref().map(|transfer| transfer.owner_id),
        transfer_id: latest.as_ref().map(|transfer| transfer.id),
        since: latest.map(|transfer| transfer.timestamp),
    })
}

/// Deletes the row with this id. Fails with [`StoreError::NotFound`] if there is none, and with
/// [`StoreError::HasTransfers`] if transfers refer to it.
pub(crate) async fn delete<R: DeletableRow>(client: &Client, id: Uuid) -> Result<(), StoreError> {
    let statement = client.prepare_cached(R::DELETE).await?;
    match client.execute(&statement, &[&id]).await {
        Ok(0) => Err(StoreError::NotFound(R::NAME)),
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            Err(StoreError::HasTransfers)
        }
        Err(error) => Err(error.into()),
    }
}
