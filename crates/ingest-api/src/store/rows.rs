//! How the types of [`crate::model`] are written to their tables and read back.

use postgres_kit::database;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};
use uuid::Uuid;

use crate::model::{
    BaseItem, BaseItemId, Description, EventTime, Item, ItemId, NewRow, Resource, Transfer,
    TransferId, User, UserId,
};
use crate::store::error::DatabaseError;
use crate::store::sql::{self, RowStatements};

/// A parameter of an insert: one column of many rows.
pub(crate) struct Parameter {
    values: Box<dyn ToSql + Sync + Send>,
    kind: Type,
}

impl Parameter {
    pub(crate) fn as_sent(&self) -> database::Parameter<'_> {
        (&*self.values, self.kind.clone())
    }
}

/// A table that rows of other tables refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ParentTable {
    BaseItems,
    Users,
    Items,
}

impl ParentTable {
    /// The statement that selects which of the ids `$1` exist.
    pub(crate) const fn select_existing(self) -> &'static str {
        match self {
            Self::BaseItems => sql::EXISTING_BASE_ITEMS,
            Self::Users => sql::EXISTING_USERS,
            Self::Items => sql::EXISTING_ITEMS,
        }
    }
}

/// A row of another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Parent {
    pub(crate) table: ParentTable,
    pub(crate) id: Uuid,
}

/// A field that refers to a row of another table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference {
    pub(crate) field: &'static str,
    pub(crate) parent: Parent,
}

impl Reference {
    const fn new(field: &'static str, table: ParentTable, id: Uuid) -> Self {
        Self { field, parent: Parent { table, id } }
    }
}

/// A row of one of the tables.
pub(crate) trait StoredRow: Resource {
    /// The name of the table, which is also a label of metrics.
    const TABLE: &'static str;
    /// The statements for the table.
    const SQL: RowStatements;

    /// The fields that refer to other tables.
    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
    /// Whether `new`, which has the id of `stored`, has the same content: the client repeats
    /// itself.
    fn same_content(new: &NewRow<Self>, stored: &Self) -> bool;
    /// Reads a row that has all columns.
    fn from_row(row: &Row) -> Result<Self, DatabaseError>;
    /// The parameters of the insert: an array for each column, and last for `written_by`.
    fn parameters(rows: &[&NewRow<Self>]) -> Vec<Parameter>;
}

/// A row that clients may delete.
pub(crate) trait DeletableRow: StoredRow {
    /// Deletes the row with the id `$1`, and records who (`$2`) did it by which request (`$3`).
    const DELETE: &'static str;
}

/// Reads a column.
///
/// # Errors
/// [`DatabaseError::Unreadable`] if it does not exist or has a value that `T` cannot hold.
pub(crate) fn column<'row, T: FromSql<'row>>(
    row: &'row Row,
    column: &'static str,
) -> Result<T, DatabaseError> {
    row.try_get(column).map_err(|error| DatabaseError::Unreadable { column, source: error.into() })
}

fn time_column(row: &Row, name: &'static str) -> Result<EventTime, DatabaseError> {
    EventTime::new(column(row, name)?)
        .map_err(|error| DatabaseError::Unreadable { column: name, source: error.into() })
}

/// `kind` is the type of the array.
fn array<R, T: ToSql + Sync + Send + 'static>(
    kind: Type,
    rows: &[&NewRow<R>],
    value: impl Fn(&R) -> T,
) -> Parameter {
    Parameter { values: Box::new(rows.iter().map(|new| value(&new.row)).collect::<Vec<T>>()), kind }
}

/// Who writes each row.
fn writers<R>(rows: &[&NewRow<R>]) -> Parameter {
    let writers = rows.iter().map(|new| new.written_by).collect::<Vec<Option<i32>>>();
    Parameter { values: Box::new(writers), kind: Type::INT4_ARRAY }
}

impl StoredRow for BaseItem {
    const TABLE: &'static str = "public.base_items";
    const SQL: RowStatements = sql::BASE_ITEMS;

    fn same_content(new: &NewRow<Self>, stored: &Self) -> bool {
        new.row.description == stored.description
    }

    fn from_row(row: &Row) -> Result<Self, DatabaseError> {
        let description = Description::try_from(column::<String>(row, "description")?);
        Ok(Self {
            id: BaseItemId(column(row, "id")?),
            description: description.map_err(|error| DatabaseError::Unreadable {
                column: "description",
                source: error.into(),
            })?,
        })
    }

    fn parameters(rows: &[&NewRow<Self>]) -> Vec<Parameter> {
        vec![
            array(Type::UUID_ARRAY, rows, |row| row.id.0),
            array(Type::TEXT_ARRAY, rows, |row| row.description.as_str().to_owned()),
            writers(rows),
        ]
    }
}

impl StoredRow for User {
    const TABLE: &'static str = "public.users";
    const SQL: RowStatements = sql::USERS;

    fn same_content(_: &NewRow<Self>, _: &Self) -> bool {
        true
    }

    fn from_row(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self { id: UserId(column(row, "id")?) })
    }

    fn parameters(rows: &[&NewRow<Self>]) -> Vec<Parameter> {
        vec![array(Type::UUID_ARRAY, rows, |row| row.id.0), writers(rows)]
    }
}

impl StoredRow for Item {
    const TABLE: &'static str = "public.items";
    const SQL: RowStatements = sql::ITEMS;

    fn references(&self) -> Vec<Reference> {
        vec![Reference::new("base_item_id", ParentTable::BaseItems, self.base_item_id.0)]
    }

    fn same_content(new: &NewRow<Self>, stored: &Self) -> bool {
        let same_time = !new.time_given || new.row.created_at == stored.created_at;
        new.row.base_item_id == stored.base_item_id && same_time
    }

    fn from_row(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            id: ItemId(column(row, "id")?),
            base_item_id: BaseItemId(column(row, "base_item_id")?),
            created_at: time_column(row, "created_at")?,
        })
    }

    fn parameters(rows: &[&NewRow<Self>]) -> Vec<Parameter> {
        vec![
            array(Type::UUID_ARRAY, rows, |row| row.id.0),
            array(Type::UUID_ARRAY, rows, |row| row.base_item_id.0),
            array(Type::TIMESTAMPTZ_ARRAY, rows, |row| row.created_at.utc()),
            writers(rows),
        ]
    }
}

impl DeletableRow for Item {
    const DELETE: &'static str = sql::DELETE_ITEM;
}

impl StoredRow for Transfer {
    const TABLE: &'static str = "public.transfers";
    const SQL: RowStatements = sql::TRANSFERS;

    fn references(&self) -> Vec<Reference> {
        vec![
            Reference::new("item_id", ParentTable::Items, self.item_id.0),
            Reference::new("owner_id", ParentTable::Users, self.owner_id.0),
        ]
    }

    fn same_content(new: &NewRow<Self>, stored: &Self) -> bool {
        let same_time = !new.time_given || new.row.timestamp == stored.timestamp;
        new.row.item_id == stored.item_id && new.row.owner_id == stored.owner_id && same_time
    }

    fn from_row(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            id: TransferId(column(row, "id")?),
            timestamp: time_column(row, "timestamp")?,
            owner_id: UserId(column(row, "owner_id")?),
            item_id: ItemId(column(row, "item_id")?),
        })
    }

    fn parameters(rows: &[&NewRow<Self>]) -> Vec<Parameter> {
        vec![
            array(Type::UUID_ARRAY, rows, |row| row.id.0),
            array(Type::TIMESTAMPTZ_ARRAY, rows, |row| row.timestamp.utc()),
            array(Type::UUID_ARRAY, rows, |row| row.owner_id.0),
            array(Type::UUID_ARRAY, rows, |row| row.item_id.0),
            writers(rows),
        ]
    }
}

impl DeletableRow for Transfer {
    const DELETE: &'static str = sql::DELETE_TRANSFER;
}
