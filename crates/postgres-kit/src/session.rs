//! One connection of a pool while it is in use, and the statements that run on it.
//!
//! Invariant: each statement is a transaction of its own. So a statement can be repeated alone, and
//! a pooler may run each on another session of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deadpool::managed::Object;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};

use crate::database::Manager;
use crate::error::is_stale_plan;
use crate::schema::{self, SchemaError};

/// A parameter of a statement, and its type.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How statements reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementKind {
    /// Each connection prepares a statement once, and the server may keep its plan.
    Prepared,
    /// A statement is sent without a name, with its parameters, in one message. The server plans it
    /// each time, but the next one may run on another session: that is what poolers need.
    Unnamed,
}

/// A connection in use.
#[derive(Debug)]
pub struct Session {
    client: Object<Manager>,
    kind: StatementKind,
    /// The number of statements of the whole pool that were prepared again.
    replanned: Arc<AtomicU64>,
}

impl Session {
    pub(crate) const fn new(
        client: Object<Manager>,
        kind: StatementKind,
        replanned: Arc<AtomicU64>,
    ) -> Self {
        Self { client, kind, replanned }
    }

    /// Takes the connection out of the pool and closes it.
    pub(crate) fn close(self) {
        drop(Object::take(self.client));
    }

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// The connection is lost, or the server refuses the statement.
    pub async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        if self.kind == StatementKind::Unnamed {
            return self.client.query_typed(statement, parameters).await;
        }
        let (values, types) = split(parameters);
        let prepared = self.client.prepare_typed_cached(statement, &types).await?;
        match self.client.query(&prepared, &values).await {
            Err(error) if is_stale_plan(&error) => {
                self.forget_plans();
                let prepared = self.client.prepare_typed_cached(statement, &types).await?;
                self.client.query(&prepared, &values).await
            }
            result => result,
        }
    }

    /// Runs a statement and returns how many rows it has changed.
    ///
    /// # Errors
    /// The connection is lost, or the server refuses the statement.
    pub async fn execute(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, Error> {
        if self.kind == StatementKind::Unnamed {
            return self.client.execute_typed(statement, parameters).await;
        }
        let (values, types) = split(parameters);
        let prepared = self.client.prepare_typed_cached(statement, &types).await?;
        match self.client.execute(&prepared, &values).await {
            Err(error) if is_stale_plan(&error) => {
                self.forget_plans();
                let prepared = self.client.prepare_typed_cached(statement, &types).await?;
                self.client.execute(&prepared, &values).await
            }
            result => result,
        }
    }

    /// Checks that the server answers.
    ///
    /// # Errors
    /// The connection is lost, or the server refuses even this.
    pub async fn ping(&self) -> Result<(), Error> {
        self.client.batch_execute("SELECT 1").await
    }

    /// Fails if this release does not work on the schema of the database. Returns its version.
    ///
    /// # Errors
    /// [`SchemaError`], which says what to do.
    pub async fn check_schema(&self) -> Result<i32, SchemaError> {
        schema::check(&self.client).await
    }

    /// Forgets all prepared statements of the connection after one of them was stale: the change of
    /// the table may have made others stale, too.
    fn forget_plans(&self) {
        self.client.statement_cache.clear();
        self.replanned.fetch_add(1, Ordering::Relaxed);
    }
}

fn split<'a>(parameters: &[Parameter<'a>]) -> (Vec<&'a (dyn ToSql + Sync)>, Vec<Type>) {
    parameters.iter().map(|(value, kind)| (*value, kind.clone())).unzip()
}
