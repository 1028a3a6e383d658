//! Producers that write to Postgres directly, in transactions of every kind.

use std::fmt::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::SinkExt;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::history::{ExpectedState, Parents, Table, WriteKind};
use crate::world::{RESPONSE_TIMEOUT, TestWorld};

/// A producer that writes to Postgres directly.
pub(super) struct SqlProducer {
    pub(super) world: TestWorld,
    pub(super) random: StdRng,
    /// The name of the last two-phase transaction.
    pub(super) prepared: Option<Uuid>,
}

/// A step of a transaction.
enum Statement {
    /// A statement that changes no rows.
    Control(String),
    /// A statement that must change this number of rows.
    Rows(String, u64),
    /// Items, in the text format of COPY.
    CopyItems(String),
}

impl Statement {
    /// Runs it. Returns an error text if it changed another number of rows than it must.
    async fn run(&self, client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
        match self {
            Self::Control(statement) => client.batch_execute(statement).await.map(|()| None),
            Self::Rows(statement, expected) => {
                let rows = client.execute(statement, &[]).await?;
                Ok((rows != *expected)
                    .then(|| format!("{rows} rows instead of {expected}: {statement}")))
            }
            Self::CopyItems(rows) => {
                let mut sink = pin!(
                    client.copy_in("COPY items (id, base_item_id, created_at) FROM STDIN").await?
                );
                sink.send(Bytes::copy_from_slice(rows.as_bytes())).await?;
                sink.finish().await.map(|_| None)
            }
        }
    }
}

/// What a transaction changes if it commits.
#[derive(Default)]
struct RowChanges {
    inserted: Vec<(Table, Uuid)>,
    deleted: Vec<(Table, Uuid)>,
    kinds: Vec<WriteKind>,
}

impl SqlProducer {
    /// Writes until the connection fails.
    pub(super) async fn write(&mut self) -> anyhow::Result<()> {
        let connected =
            tokio::time::timeout(RESPONSE_TIMEOUT, self.world.database.connect(NoTls)).await;
        let (client, connection) = connected.context("connecting took too long")??;
        tokio::spawn(connection);
        if let Some(name) = self.prepared.take() {
            // In most cases it has already ended.
            let _ended = client.batch_execute(&format!("ROLLBACK PREPARED '{name}'")).await;
        }
        let mut own = Vec::new();
        loop {
            self.transaction(&client, &mut own).await?;
            tokio::time::sleep(Duration::from_millis(self.random.random_range(5..60))).await;
        }
    }

    /// Runs one transaction. `own` are rows that no other producer changes.
    async fn transaction(
        &mut self,
        client: &Client,
        own: &mut Vec<(Table, Uuid)>,
    ) -> anyhow::Result<()> {
        let history = Arc::clone(&self.world.history);
        let _in_flight = history.begin().await;
        let isolation =
            ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][self.random.random_range(0..3)];
        let mut statements = vec![Statement::Control(format!("BEGIN ISOLATION LEVEL {isolation}"))];
        let mut effects = RowChanges::default();
        for _ in 0..self.random.random_range(1..4) {
            self.change(&mut statements, &mut effects, own);
        }
        if self.random.random_bool(0.2) {
            // Keeps the transaction open for many ticks.
            let sleep = format!("SELECT pg_sleep({})", self.random.random_range(0.05..1.5));
            statements.push(Statement::Control(sleep));
        }
        let rolled_back = self.random.random_bool(0.2);
        let RowChanges { inserted, deleted, mut kinds } = effects;
        for (table, id) in inserted.iter().chain(&deleted) {
            history.note(*table, *id, ExpectedState::Unknown);
        }
        let mut end = if rolled_back { "ROLLBACK" } else { "COMMIT" }.to_owned();
        if self.random.random_bool(0.1) {
            // A two-phase transaction. If its second phase fails, the next connection rolls it
            // back, or the next pause does. Postgres refuses the first phase after a NOTIFY.
            let name = Uuid::now_v7();
            self.prepared = Some(name);
            statements.push(Statement::Control(format!("PREPARE TRANSACTION '{name}'")));
            end = format!("{end} PREPARED '{name}'");
            if rolled_back {
                kinds = vec![WriteKind::RollbackPrepared];
            } else {
                kinds.push(WriteKind::CommitPrepared);
            }
        } else if rolled_back {
            kinds = vec![WriteKind::RolledBack];
        }
        let run = async {
            for statement in &statements {
                if let Some(wrong) = statement.run(client).await? {
                    history.record_violation(format!(
                        "of rows that no other producer changes: {wrong}"
                    ));
                }
            }
            Ok::<_, tokio_postgres::Error>(())
        };
        let written = tokio::time::timeout(RESPONSE_TIMEOUT, run).await;
        let mut has_ended = false;
        let outcome = match written {
            Ok(Ok(())) => {
                let ended =
                    tokio::time::timeout(RESPONSE_TIMEOUT, client.batch_execute(&end)).await;
                if let Ok(Ok(())) = ended {
                    history.succeeded(kinds);
                    has_ended = true;
                }
                match ended {
                    _ if rolled_back => ExpectedState::Absent,
                    Ok(Ok(())) => ExpectedState::Stored,
                    // If the server refused the commit, it has rolled back. If the connection was
                    // lost, the outcome is unknown.
                    Ok(Err(error)) if error.code().is_some_and(is_rolled_back) => {
                        ExpectedState::Absent
                    }
                    Ok(Err(_)) | Err(_) => ExpectedState::Unknown,
                }
            }
            // A transaction that failed before its commit was requested is rolled back, now or when
            // the server notices the loss of the connection.
            _ => ExpectedState::Absent,
        };
        let deleted_state = match outcome {
            ExpectedState::Stored => ExpectedState::Absent,
            ExpectedState::Absent => ExpectedState::Stored,
            ExpectedState::Unknown => ExpectedState::Unknown,
        };
        for (table, id) in &inserted {
            history.note(*table, *id, outcome);
        }
        for (table, id) in &deleted {
            history.note(*table, *id, deleted_state);
        }
        match outcome {
            ExpectedState::Stored => own.extend(inserted),
            ExpectedState::Absent => own.extend(deleted),
            ExpectedState::Unknown => {}
        }
        history.count(outcome);
        if !has_ended {
            // Otherwise the next transaction would be a part of this one.
            tokio::time::timeout(RESPONSE_TIMEOUT, client.batch_execute("ROLLBACK")).await??;
        }
        Ok(())
    }

    fn change(
        &mut self,
        statements: &mut Vec<Statement>,
        effects: &mut RowChanges,
        own: &mut Vec<(Table, Uuid)>,
    ) {
        let Parents { base_item, user, item } = self.world.parents;
        let back = self.random.random_range(0..5_000);
        let time = match self.random.random_range(0..3) {
            0 => "now()".to_owned(),
            1 => format!("now() - interval '{back} ms'"),
            _ => format!("'2024-02-28Z'::timestamptz + interval '{} minutes'", back % 4_320),
        };
        let undone = self.random.random_bool(0.15);
        if undone {
            statements.push(Statement::Control("SAVEPOINT here".to_owned()));
        }
        let kind = self.random.random_range(0..12);
        let number = if self.random.random_bool(0.1) { self.random.random_range(2..60) } else { 1 };
        let ids: Vec<Uuid> = (0..number).map(|_| Uuid::now_v7()).collect();
        let list =
            |row: &dyn Fn(&Uuid) -> String| ids.iter().map(row).collect::<Vec<_>>().join(", ");
        match kind {
            0..4 => {
                let rows = list(&|id| format!("('{id}', '{base_item}', {time})"));
                statements
                    .push(Statement::Rows(format!("INSERT INTO items VALUES {rows}"), number));
                effects.insert(undone, WriteKind::Insert, Table::Items, &ids);
            }
            4..8 => {
                let rows = list(&|id| format!("('{id}', {time}, '{user}', '{item}')"));
                statements
                    .push(Statement::Rows(format!("INSERT INTO transfers VALUES {rows}"), number));
                effects.insert(undone, WriteKind::Insert, Table::Transfers, &ids);
            }
            8 => {
                let mut rows = String::new();
                for (minute, id) in ids.iter().enumerate() {
                    // Writing to a string cannot fail.
                    let _written = writeln!(rows, "{id}\t{base_item}\t2024-02-29 23:{minute}:00Z");
                }
                statements.push(Statement::CopyItems(rows));
                effects.insert(undone, WriteKind::Copy, Table::Items, &ids);
            }
            9 => {
                // Updates the last own row if it is a transfer, and inserts the other rows.
                let held =
                    own.last().filter(|(table, _)| *table == Table::Transfers).map(|(_, id)| id);
                let wanted =
                    ids.iter().chain(held).map(|id| format!("('{id}'::uuid)")).collect::<Vec<_>>();
                let merge = format!(
                    "MERGE INTO transfers AS held USING (VALUES {}) AS wanted (id) ON held.id = wanted.id \
                     WHEN MATCHED THEN UPDATE SET \"timestamp\" = {time} \
                     WHEN NOT MATCHED THEN INSERT VALUES (wanted.id, {time}, '{user}', '{item}')",
                    wanted.join(", ")
                );
                statements.push(Statement::Rows(merge, wanted.len() as u64));
                effects.insert(undone, WriteKind::Merge, Table::Transfers, &ids);
            }
            10 => {
                if let Some((table, id)) = own.last() {
                    let name = table.name();
                    let column = table.time_column();
                    let update = format!("UPDATE {name} SET {column} = {time} WHERE id = '{id}'");
                    statements.push(Statement::Rows(update, 1));
                    if !undone {
                        effects.kinds.push(WriteKind::Update);
                    }
                }
            }
            _ if undone => {}
            _ => {
                if let Some((table, id)) = own.pop() {
                    let delete = format!("DELETE FROM {} WHERE id = '{id}'", table.name());
                    statements.push(Statement::Rows(delete, 1));
                    effects.deleted.push((table, id));
                    effects.kinds.push(WriteKind::Delete);
                }
            }
        }
        if undone {
            statements.push(Statement::Control("ROLLBACK TO here".to_owned()));
            effects.kinds.push(WriteKind::PartRolledBack);
        }
    }
}

impl RowChanges {
    /// Notes inserted rows. Rows that a savepoint rolls back are not noted, because they are absent
    /// whatever happens to the transaction.
    fn insert(&mut self, undone: bool, kind: WriteKind, table: Table, ids: &[Uuid]) {
        if !undone {
            self.kinds.push(kind);
            self.inserted.extend(ids.iter().map(|id| (table, *id)));
        }
    }
}

/// Whether this error means that the transaction was rolled back, and not that the connection
/// failed.
fn is_rolled_back(code: &tokio_postgres::error::SqlState) -> bool {
    // Classes 57 (the server stops), 58 and 53 (its machine), 08 (the connection) and XX (a bug)
    // leave it open whether the commit was done.
    !["57", "58", "53", "08", "XX"].iter().any(|class| code.code().starts_with(class))
}
