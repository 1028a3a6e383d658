//! Producers that write rows themselves.

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

use crate::history::{Fate, Table, Way};
use crate::writers::{PATIENCE, Parents, World};

/// A producer that writes rows itself.
pub(super) struct Sql {
    pub(super) world: World,
    pub(super) random: StdRng,
    /// The last transaction in two phases.
    pub(super) prepared: Option<Uuid>,
}

/// A part of a transaction.
enum Statement {
    /// A statement that concerns no rows.
    Control(String),
    /// A statement that must concern so many rows.
    Rows(String, u64),
    /// Items, in the text format of COPY.
    CopyItems(String),
}

impl Statement {
    /// Runs it. Returns what is wrong, in words, where it concerned other rows than it must.
    async fn run(&self, client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
        match self {
            Self::Control(statement) => client.batch_execute(statement).await.map(|()| None),
            Self::Rows(statement, expected) => {
                let rows = client.execute(statement, &[]).await?;
                Ok((rows != *expected).then(|| format!("{rows} rows instead of {expected}: {statement}")))
            }
            Self::CopyItems(rows) => {
                let mut sink = pin!(client.copy_in("COPY items FROM STDIN").await?);
                sink.send(Bytes::copy_from_slice(rows.as_bytes())).await?;
                sink.finish().await.map(|_| None)
            }
        }
    }
}

/// What a transaction did to rows, should it commit.
#[derive(Default)]
struct Effects {
    inserted: Vec<(Table, Uuid)>,
    deleted: Vec<(Table, Uuid)>,
    ways: Vec<Way>,
}

impl Sql {
    /// Writes until the connection breaks.
    pub(super) async fn write(&mut self) -> anyhow::Result<()> {
        let connected = tokio::time::timeout(PATIENCE, self.world.database.connect(NoTls)).await;
        let (client, connection) = connected.context("connecting took too long")??;
        tokio::spawn(connection);
        if let Some(name) = self.prepared.take() {
            // Most often there is none any more.
            let _ended = client.batch_execute(&format!("ROLLBACK PREPARED '{name}'")).await;
        }
        let mut own = Vec::new();
        loop {
            self.transaction(&client, &mut own).await?;
            tokio::time::sleep(Duration::from_millis(self.random.random_range(5..60))).await;
        }
    }

    /// One transaction; `own` are rows that nobody else changes.
    async fn transaction(&mut self, client: &Client, own: &mut Vec<(Table, Uuid)>) -> anyhow::Result<()> {
        let history = Arc::clone(&self.world.history);
        let _in_flight = history.begin().await;
        let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][self.random.random_range(0..3)];
        let (mut statements, mut effects) =
            (vec![Statement::Control(format!("BEGIN ISOLATION LEVEL {isolation}"))], Effects::default());
        for _ in 0..self.random.random_range(1..4) {
            self.change(&mut statements, &mut effects, own);
        }
        if self.random.random_bool(0.2) {
            // Held open across many ticks: the time is spent in the server, inside the transaction.
            let sleep = format!("SELECT pg_sleep({})", self.random.random_range(0.05..1.5));
            statements.push(Statement::Control(sleep));
        }
        let rolled_back = self.random.random_bool(0.2);
        let Effects { inserted, deleted, mut ways } = effects;
        for (table, id) in inserted.iter().chain(&deleted) {
            history.note(*table, [*id], Fate::Unknown);
        }
        let mut end = if rolled_back { "ROLLBACK" } else { "COMMIT" }.to_owned();
        if self.random.random_bool(0.1) {
            // In two phases. Where the second fails, it is rolled back by the next connection, or at rest; after a NOTIFY,
            // Postgres refuses the first.
            let name = Uuid::now_v7();
            self.prepared = Some(name);
            statements.push(Statement::Control(format!("PREPARE TRANSACTION '{name}'")));
            end = format!("{end} PREPARED '{name}'");
            if rolled_back {
                ways = vec![Way::RollbackPrepared];
            } else {
                ways.push(Way::CommitPrepared);
            }
        } else if rolled_back {
            ways = vec![Way::RolledBack];
        }
        let run = async {
            for statement in &statements {
                if let Some(wrong) = statement.run(client).await? {
                    history.complain(format!("of rows that nobody else changes: {wrong}"));
                }
            }
            Ok::<_, tokio_postgres::Error>(())
        };
        let written = tokio::time::timeout(PATIENCE, run).await;
        let mut has_ended = false;
        // What failed before its commit was asked for is rolled back, now or when the server notices.
        let (committed, absent) = match written {
            Ok(Ok(())) => {
                let ended = tokio::time::timeout(PATIENCE, client.batch_execute(&end)).await;
                if let Ok(Ok(())) = ended {
                    history.succeeded(ways);
                    has_ended = true;
                }
                match (ended, rolled_back) {
                    (Ok(Ok(())), false) => (true, false),
                    (_, true) => (false, true),
                    // Refused by the server, which then has rolled it back; where it is lost, nobody knows.
                    (Ok(Err(error)), false) => (false, error.code().is_some_and(is_rolled_back)),
                    (Err(_), false) => (false, false),
                }
            }
            _ => (false, true),
        };
        for (table, id) in &inserted {
            match (committed, absent) {
                (true, _) => history.note(*table, [*id], Fate::Stored),
                (_, true) => history.note(*table, [*id], Fate::Absent),
                _ => {}
            }
        }
        for (table, id) in &deleted {
            match (committed, absent) {
                (true, _) => history.note(*table, [*id], Fate::Absent),
                (_, true) => history.note(*table, [*id], Fate::Stored),
                _ => {}
            }
        }
        if committed {
            own.extend(inserted);
        } else if absent {
            own.extend(deleted);
        }
        history.count(match (committed, absent) {
            (true, _) => Fate::Stored,
            (_, true) => Fate::Absent,
            _ => Fate::Unknown,
        });
        if !has_ended {
            // Otherwise the next one would be a part of it.
            tokio::time::timeout(PATIENCE, client.batch_execute("ROLLBACK")).await??;
        }
        Ok(())
    }

    fn change(
        &mut self,
        statements: &mut Vec<Statement>,
        effects: &mut Effects,
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
        let list = |row: &dyn Fn(&Uuid) -> String| ids.iter().map(row).collect::<Vec<_>>().join(", ");
        match kind {
            0..4 => {
                let rows = list(&|id| format!("('{id}', '{base_item}', {time})"));
                statements.push(Statement::Rows(format!("INSERT INTO items VALUES {rows}"), number));
                effects.insert(undone, Way::Insert, Table::Items, &ids);
            }
            4..8 => {
                let rows = list(&|id| format!("('{id}', {time}, '{user}', '{item}')"));
                statements.push(Statement::Rows(format!("INSERT INTO transfers VALUES {rows}"), number));
                effects.insert(undone, Way::Insert, Table::Transfers, &ids);
            }
            8 => {
                let mut rows = String::new();
                for (minute, id) in ids.iter().enumerate() {
                    // Writing to a String does not fail.
                    let _written = writeln!(rows, "{id}\t{base_item}\t2024-02-29 23:{minute}:00Z");
                }
                statements.push(Statement::CopyItems(rows));
                effects.insert(undone, Way::Copy, Table::Items, &ids);
            }
            9 => {
                // A row of its own, if that is a transfer, is changed; the others are new.
                let held = own.last().filter(|(table, _)| *table == Table::Transfers).map(|(_, id)| id);
                let wanted = ids.iter().chain(held).map(|id| format!("('{id}'::uuid)")).collect::<Vec<_>>();
                let merge = format!(
                    "MERGE INTO transfers AS held USING (VALUES {}) AS wanted (id) ON held.id = wanted.id \
                     WHEN MATCHED THEN UPDATE SET \"timestamp\" = {time} \
                     WHEN NOT MATCHED THEN INSERT VALUES (wanted.id, {time}, '{user}', '{item}')",
                    wanted.join(", ")
                );
                statements.push(Statement::Rows(merge, wanted.len() as u64));
                effects.insert(undone, Way::Merge, Table::Transfers, &ids);
            }
            10 => {
                if let Some((table, id)) = own.last() {
                    let (name, column) = (table.name(), table.time());
                    let update = format!("UPDATE {name} SET {column} = {time} WHERE id = '{id}'");
                    statements.push(Statement::Rows(update, 1));
                    if !undone {
                        effects.ways.push(Way::Update);
                    }
                }
            }
            _ if undone => {}
            _ => {
                if let Some((table, id)) = own.pop() {
                    let delete = format!("DELETE FROM {} WHERE id = '{id}'", table.name());
                    statements.push(Statement::Rows(delete, 1));
                    effects.deleted.push((table, id));
                    effects.ways.push(Way::Delete);
                }
            }
        }
        if undone {
            statements.push(Statement::Control("ROLLBACK TO here".to_owned()));
            effects.ways.push(Way::PartRolledBack);
        }
    }
}

impl Effects {
    /// What was undone is not there, whatever becomes of the rest; it needs no mention before it is written.
    fn insert(&mut self, undone: bool, way: Way, table: Table, ids: &[Uuid]) {
        if !undone {
            self.ways.push(way);
            self.inserted.extend(ids.iter().map(|id| (table, *id)));
        }
    }
}

/// Whether the server says with this error that the transaction is over and undone, and not that the connection is.
fn is_rolled_back(code: &tokio_postgres::error::SqlState) -> bool {
    // Class 57 is the server going away, 58 and 53 its machine: then the commit may have been done.
    !["57", "58", "53", "08", "XX"].iter().any(|class| code.code().starts_with(class))
}
