//! Producers that write rows themselves.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::history::{Fate, Table};
use crate::writers::{PATIENCE, Parents, World};

/// A producer that writes rows itself.
pub(super) struct Sql {
    pub(super) world: World,
    pub(super) random: StdRng,
}

/// What a transaction did to rows, should it commit.
#[derive(Default)]
struct Effects {
    inserted: Vec<(Table, Uuid)>,
    deleted: Vec<(Table, Uuid)>,
}

impl Sql {
    /// Writes until the connection breaks.
    pub(super) async fn write(&mut self) -> anyhow::Result<()> {
        let connected = tokio::time::timeout(PATIENCE, self.world.database.connect(NoTls)).await;
        let (client, connection) = connected.context("connecting took too long")??;
        tokio::spawn(connection);
        let mut own = Vec::new();
        loop {
            self.transaction(&client, &mut own).await?;
            tokio::time::sleep(Duration::from_millis(self.random.random_range(5..60))).await;
        }
    }

    /// One transaction; `own` are transfers that nobody else changes.
    async fn transaction(
        &mut self,
        client: &tokio_postgres::Client,
        own: &mut Vec<Uuid>,
    ) -> anyhow::Result<()> {
        let history = Arc::clone(&self.world.history);
        let _in_flight = history.begin().await;
        let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][self.random.random_range(0..3)];
        let (mut statements, mut effects) =
            (vec![format!("BEGIN ISOLATION LEVEL {isolation}")], Effects::default());
        for _ in 0..self.random.random_range(1..4) {
            self.change(&mut statements, &mut effects, own);
        }
        if self.random.random_bool(0.2) {
            // Held open across many ticks: the time is spent in the server, inside the transaction.
            statements.push(format!("SELECT pg_sleep({})", self.random.random_range(0.05..1.5)));
        }
        let rolled_back = self.random.random_bool(0.2);
        let Effects { inserted, deleted } = &effects;
        for (table, id) in inserted.iter().chain(deleted) {
            history.note(*table, [*id], Fate::Unknown);
        }
        let end = if rolled_back { "ROLLBACK" } else { "COMMIT" };
        let run = async {
            for statement in &statements {
                client.batch_execute(statement).await?;
            }
            Ok::<_, tokio_postgres::Error>(())
        };
        let written = tokio::time::timeout(PATIENCE, run).await;
        // What failed before its commit was asked for is rolled back, now or when the server notices.
        let (committed, absent) = match written {
            Ok(Ok(())) => {
                let ended = tokio::time::timeout(PATIENCE, client.batch_execute(end)).await;
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
        for (table, id) in inserted {
            match (committed, absent) {
                (true, _) => history.note(*table, [*id], Fate::Stored),
                (_, true) => history.note(*table, [*id], Fate::Absent),
                _ => {}
            }
        }
        for (table, id) in deleted {
            match (committed, absent) {
                (true, _) => history.note(*table, [*id], Fate::Absent),
                (_, true) => history.note(*table, [*id], Fate::Stored),
                _ => {}
            }
        }
        if committed {
            own.extend(inserted.iter().filter(|(table, _)| *table == Table::Transfers).map(|(_, id)| *id));
        } else if absent {
            own.extend(deleted.iter().map(|(_, id)| *id));
        }
        history.count(match (committed, absent) {
            (true, _) => Fate::Stored,
            (_, true) => Fate::Absent,
            _ => Fate::Unknown,
        });
        if !committed && !rolled_back {
            tokio::time::timeout(PATIENCE, client.batch_execute("ROLLBACK")).await??;
        }
        Ok(())
    }

    fn change(&mut self, statements: &mut Vec<String>, effects: &mut Effects, own: &mut Vec<Uuid>) {
        let Parents { base_item, user, item } = self.world.parents;
        let back = self.random.random_range(0..5_000);
        let time = match self.random.random_range(0..3) {
            0 => "now()".to_owned(),
            1 => format!("now() - interval '{back} ms'"),
            _ => format!("'2024-02-28Z'::timestamptz + interval '{} minutes'", back % 4_320),
        };
        let undone = self.random.random_bool(0.15);
        if undone {
            statements.push("SAVEPOINT here".to_owned());
        }
        let kind = self.random.random_range(0..10);
        let number = if self.random.random_bool(0.1) { self.random.random_range(2..60) } else { 1 };
        let ids: Vec<Uuid> = (0..number).map(|_| Uuid::now_v7()).collect();
        let list = |row: &dyn Fn(&Uuid) -> String| ids.iter().map(row).collect::<Vec<_>>().join(", ");
        match kind {
            0..4 => {
                let rows = list(&|id| format!("('{id}', '{base_item}', {time})"));
                statements.push(format!("INSERT INTO items VALUES {rows}"));
                effects.insert(undone, Table::Items, &ids);
            }
            4..8 => {
                let rows = list(&|id| format!("('{id}', {time}, '{user}', '{item}')"));
                statements.push(format!("INSERT INTO transfers VALUES {rows}"));
                effects.insert(undone, Table::Transfers, &ids);
            }
            8 => {
                if let Some(id) = own.last() {
                    statements.push(format!("UPDATE transfers SET \"timestamp\" = {time} WHERE id = '{id}'"));
                }
            }
            _ if undone => {}
            _ => {
                if let Some(id) = own.pop() {
                    statements.push(format!("DELETE FROM transfers WHERE id = '{id}'"));
                    effects.deleted.push((Table::Transfers, id));
                }
            }
        }
        if undone {
            statements.push("ROLLBACK TO here".to_owned());
        }
    }
}

impl Effects {
    /// What was undone is not there, whatever becomes of the rest; it needs no mention before it is written.
    fn insert(&mut self, undone: bool, table: Table, ids: &[Uuid]) {
        if !undone {
            self.inserted.extend(ids.iter().map(|id| (table, *id)));
        }
    }
}

/// Whether the server says with this error that the transaction is over and undone, and not that the connection is.
fn is_rolled_back(code: &tokio_postgres::error::SqlState) -> bool {
    // Class 57 is the server going away, 58 and 53 its machine: then the commit may have been done.
    !["57", "58", "53", "08", "XX"].iter().any(|class| code.code().starts_with(class))
}
