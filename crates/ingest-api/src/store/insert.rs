//! Stores rows, and returns the outcome of each.
//!
//! All rows are sent in one statement, which stores a row if its id is new and its parents exist. A
//! lone row has a statement of its own, which costs less. For the rows that were not stored, the
//! stored rows and the parents are looked up afterwards: the row is a repetition, a conflict, or
//! refers to a row that does not exist. Other transactions may delete or create these rows in
//! between, so an insert takes as many rounds as it needs until every row has an outcome.
//!
//! If all rows are likely to be new, a statement that costs much less is sent first. If it is
//! refused, it has stored nothing, and all is as if it had not been sent.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};

use postgres_kit::database::{self, Session};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::model::NewRow;
use crate::rejection::Rejection;
use crate::store::error::DatabaseError;
use crate::store::queries::find_rows;
use crate::store::rows::{Parameter, Parent, ParentTable, StoredRow, column};
use crate::store::sql;

/// The maximum number of consecutive rounds that leave a row without an outcome although it was
/// sent. After that many, other requests must be changing the same rows all the time.
const MAX_UNDECIDED_ROUNDS: usize = 5;

/// The outcome of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InsertOutcome<R> {
    /// The row is stored.
    Created(R),
    /// The row was stored before, with the same content. Holds the stored row.
    Repeated(R),
    /// The row was not stored.
    Rejected(Rejection),
}

/// How many inserts are not tried as new ones after one that was not: a producer that repeats what
/// it has sent most likely goes on to.
const CAREFUL_INSERTS: u32 = 64;

/// Whether the next rows of a source, such as an upload, are likely to be new, and to have parents.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    /// The number of inserts that are not to be tried as new ones.
    careful: AtomicU32,
}

impl Expectation {
    /// Whether to try the next insert as one of new rows. Called once for each insert.
    fn holds(&self) -> bool {
        let careful = self.careful.load(Ordering::Relaxed);
        self.careful.store(careful.saturating_sub(1), Ordering::Relaxed);
        careful == 0
    }

    fn was_wrong(&self) {
        self.careful.store(CAREFUL_INSERTS, Ordering::Relaxed);
    }
}

/// An insert in progress, which can go on with another connection. Rows are named by their index.
///
/// Of several rows with the same id, only the first one is sent; the others are compared with the
/// row that is stored then. The outcome is as if all rows had been inserted one after another, but
/// it takes only a few statements however often an id occurs. If another request deletes the stored
/// row in between, this is as if it had deleted it afterwards.
pub(crate) struct Insertion<'a, R> {
    rows: &'a [NewRow<R>],
    outcomes: Vec<Option<InsertOutcome<R>>>,
    /// Whether the outcome was concluded from a row that was read.
    read: Vec<bool>,
    /// Whether the rows that were read are certain to be replicated.
    replicated: bool,
    /// Until the first attempt: after it failed, the rows may be stored, and so are not new.
    expectation: Option<&'a Expectation>,
}

impl<'a, R: StoredRow> Insertion<'a, R> {
    pub(crate) fn new(rows: &'a [NewRow<R>]) -> Self {
        let (outcomes, read) = (vec![None; rows.len()], vec![false; rows.len()]);
        Self { rows, outcomes, read, replicated: false, expectation: None }
    }

    /// As [`Self::new`], but sends the rows as new ones first, as long as the expectation holds.
    pub(crate) fn expected_new(rows: &'a [NewRow<R>], expectation: &'a Expectation) -> Self {
        Self { expectation: Some(expectation), ..Self::new(rows) }
    }

    /// Gives every row an outcome. After an error, a second call goes on with the rows that have
    /// none.
    ///
    /// # Errors
    /// The database. Some of the rows may be stored then.
    pub(crate) async fn run(&mut self, session: &Session) -> Result<(), DatabaseError> {
        self.forget_what_was_read();
        if let Some(expectation) = self.expectation.take()
            && expectation.holds()
            && !self.store_new(session).await?
        {
            expectation.was_wrong();
        }
        let mut undecided_rounds = 0;
        loop {
            let open = self.undecided();
            if open.is_empty() {
                break;
            }
            let first = self.first_of_each_id(&open);
            self.round(session, &first, &open).await?;
            if first.iter().all(|index| self.outcomes[*index].is_some()) {
                undecided_rounds = 0;
            } else {
                // The stored row or a parent was deleted or created between the statements.
                undecided_rounds += 1;
                if undecided_rounds >= MAX_UNDECIDED_ROUNDS {
                    return Err(DatabaseError::Contended);
                }
            }
        }
        if self.read.contains(&true) && !self.replicated {
            // A row that can be read is not always replicated: if the commit that stored it stopped
            // waiting for a synchronous standby, because it was cancelled or because the server is
            // dying, the row is visible, and a failover loses it. Only its own commit waits, and no
            // read does. This commit is later in the log, so when it is replicated, so is the row.
            session.execute(sql::WRITE_TO_LOG, &[]).await?;
            self.replicated = true;
        }
        Ok(())
    }

    /// The outcome of each row, in the order of the rows; nothing for rows whose outcome is not
    /// known because [`run()`](Self::run) failed.
    pub(crate) fn into_outcomes(self) -> Vec<Option<InsertOutcome<R>>> {
        let certain = self.read.into_iter().map(|read| !read || self.replicated);
        let outcomes = self.outcomes.into_iter().zip(certain);
        outcomes.map(|(outcome, certain)| outcome.filter(|_| certain)).collect()
    }

    /// Takes back outcomes that an earlier session concluded from rows that it read, and did not
    /// make certain. This session may be one of another server, which took over and does not have
    /// these rows.
    fn forget_what_was_read(&mut self) {
        if self.replicated {
            return;
        }
        for (outcome, read) in self.outcomes.iter_mut().zip(&mut self.read) {
            if std::mem::take(read) {
                *outcome = None;
            }
        }
    }

    fn id(&self, index: usize) -> Uuid {
        self.rows[index].row.id()
    }

    fn undecided(&self) -> Vec<usize> {
        (0..self.rows.len()).filter(|index| self.outcomes[*index].is_none()).collect()
    }

    /// The first row of each id, in the order of the ids: two statements that insert the same ids
    /// then wait for each other in one direction only, so they do not deadlock.
    fn first_of_each_id(&self, open: &[usize]) -> Vec<usize> {
        let mut first: Vec<(Uuid, usize)> =
            open.iter().map(|&index| (self.id(index), index)).collect();
        first.sort_unstable();
        first.dedup_by_key(|(id, _)| *id);
        first.into_iter().map(|(_, index)| index).collect()
    }

    /// Stores the rows if all of them are new and all of their parents exist, and then gives every
    /// row its outcome. Returns whether it did; if not, nothing was stored.
    async fn store_new(&mut self, session: &Session) -> Result<bool, DatabaseError> {
        let first = self.first_of_each_id(&self.undecided());
        let are_all_first = first.len() == self.rows.len();
        if !are_all_first {
            return Ok(false);
        }
        match self.send(session, R::SQL.insert_new, &first).await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(false),
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        for (outcome, new) in self.outcomes.iter_mut().zip(self.rows) {
            *outcome = Some(InsertOutcome::Created(new.row.clone()));
        }
        Ok(true)
    }

    /// Sends the rows `first` in one statement, and decides as many of the rows `open` as possible.
    async fn round(
        &mut self,
        session: &Session,
        first: &[usize],
        open: &[usize],
    ) -> Result<(), DatabaseError> {
        let statement = if first.len() == 1 { R::SQL.insert_one } else { R::SQL.insert };
        let Some(created) = self.send(session, statement, first).await? else {
            return self.reject_orphans(session, open).await;
        };
        // Most often, all rows are new.
        let all_created = created.len() == first.len();
        let are_all_first = first.len() == open.len();
        let mut stored: HashMap<Uuid, R> = HashMap::new();
        let mut refused: Vec<Uuid> = Vec::new();
        let created = if all_created { HashSet::new() } else { ids(&created)? };
        for &index in first {
            let row = &self.rows[index].row;
            if all_created || created.contains(&row.id()) {
                if !are_all_first {
                    stored.insert(row.id(), row.clone());
                }
                self.outcomes[index] = Some(InsertOutcome::Created(row.clone()));
            } else {
                refused.push(row.id());
            }
        }
        if !refused.is_empty() {
            let found = find_rows::<R>(session, &refused).await?;
            stored.extend(found.into_iter().map(|row| (row.id(), row)));
        }
        let mut not_stored: Vec<usize> = Vec::new();
        for &index in open {
            if self.outcomes[index].is_some() {
                continue;
            }
            let new = &self.rows[index];
            match stored.get(&new.row.id()) {
                // No other request knows an id that this service has just made. So this row is the
                // request's own, stored by an earlier attempt whose answer was lost. With an id of
                // the client, an earlier request may have stored the same row, and nothing can tell
                // which of the two it was: "repeated" says that the row is stored, which is true of
                // both.
                Some(row) if R::same_content(new, row) => {
                    let outcome =
                        if new.id_given { InsertOutcome::Repeated } else { InsertOutcome::Created };
                    self.outcomes[index] = Some(outcome(row.clone()));
                    self.read[index] = true;
                }
                Some(_) => {
                    self.outcomes[index] = Some(InsertOutcome::Rejected(Rejection::Conflict));
                }
                None => not_stored.push(index),
            }
        }
        self.reject_orphans(session, &not_stored).await
    }

    /// Sends rows in one statement and returns the stored rows, with their ids if the statement
    /// returns them, or nothing if none was stored: the statement does not look for parents, a
    /// parent was deleted meanwhile, or the statement and another one deadlocked after all.
    async fn send(
        &self,
        session: &Session,
        statement: &str,
        indexes: &[usize],
    ) -> Result<Option<Vec<Row>>, tokio_postgres::Error> {
        let rows: Vec<&NewRow<R>> = indexes.iter().map(|index| &self.rows[*index]).collect();
        let parameters = R::parameters(&rows);
        let parameters: Vec<database::Parameter<'_>> =
            parameters.iter().map(Parameter::as_sent).collect();
        match session.query(statement, &parameters).await {
            Ok(created) => Ok(Some(created)),
            Err(error)
                if matches!(
                    error.code(),
                    Some(&SqlState::FOREIGN_KEY_VIOLATION | &SqlState::T_R_DEADLOCK_DETECTED)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Rejects each row that refers to a row that does not exist. This includes rows that
    /// were not sent: otherwise many rows with the same id, each with another unknown parent, would
    /// be sent one by one.
    async fn reject_orphans(
        &mut self,
        session: &Session,
        indexes: &[usize],
    ) -> Result<(), DatabaseError> {
        let references = indexes.iter().flat_map(|index| self.rows[*index].row.references());
        let missing =
            missing_parents(session, references.map(|reference| reference.parent)).await?;
        for &index in indexes {
            let references = self.rows[index].row.references();
            let unknown =
                references.into_iter().find(|reference| missing.contains(&reference.parent));
            self.outcomes[index] = unknown.map(|reference| {
                InsertOutcome::Rejected(Rejection::UnknownReference { field: reference.field })
            });
        }
        Ok(())
    }
}

/// The parents that do not exist.
async fn missing_parents(
    session: &Session,
    parents: impl Iterator<Item = Parent>,
) -> Result<HashSet<Parent>, DatabaseError> {
    let mut missing: HashSet<Parent> = parents.collect();
    let tables: HashSet<ParentTable> = missing.iter().map(|parent| parent.table).collect();
    for table in tables {
        let of_table = missing.iter().filter(|parent| parent.table == table);
        let wanted: Vec<Uuid> = of_table.map(|parent| parent.id).collect();
        let existing =
            session.query(table.select_existing(), &[(&wanted, Type::UUID_ARRAY)]).await?;
        for id in ids(&existing)? {
            missing.remove(&Parent { table, id });
        }
    }
    Ok(missing)
}

fn ids(rows: &[Row]) -> Result<HashSet<Uuid>, DatabaseError> {
    rows.iter().map(|row| column(row, "id")).collect()
}
