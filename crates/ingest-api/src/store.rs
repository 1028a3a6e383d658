//! The tables: all SQL that reads or writes them, and the functions that run it.
//!
//! [`sql`] has the statements, [`rows`] connects the types of [`crate::model`] with them,
//! [`mod@insert`] stores rows, [`queries`] reads and deletes them. All of them fail with a
//! [`DatabaseError`], which does not depend on HTTP.
//!
//! Invariant: an answer is sent after the commit. Each statement is a transaction of its own, and
//! an insert can be repeated without harm.

mod error;
mod insert;
mod queries;
mod rows;
mod sql;

pub(crate) use error::DatabaseError;
pub(crate) use insert::{Expectation, InsertOutcome, Insertion};
pub(crate) use queries::{
    DeletedBy, OwnedItems, delete, find_owner, find_row, list_items_of_user, list_rows,
    list_transfers_of_item,
};
pub(crate) use rows::{DeletableRow, StoredRow};
