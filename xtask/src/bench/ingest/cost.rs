//! What an event costs the database, if several clients insert single rows.
//!
//! Invariant: only the load is measured. pgbench's logins, and the first INSERT of each session,
//! are measured before and subtracted. While the triggers are measured alone, no stats-notifier
//! runs, and this bench's own session holds the gate, as a leader does under load.

use anyhow::ensure;
use local_stack::stack::ServiceKind;
use tokio_postgres::Client;

use super::phases::Table;
use super::{Ingest, TABLES};
use crate::bench::figures::Rounds;
use crate::bench::shut_gate;
use crate::bench::usage::{DatabaseWork, EventCost};
use crate::bench::wait::{WAIT_TIMEOUT, until, until_log_is_empty};

/// Clients of the load.
const CLIENTS: u32 = 16;

/// The database's work until a load began and until it was done.
struct Measured {
    before: DatabaseWork,
    after: DatabaseWork,
    inserts: f64,
    /// CPU seconds of the logins and first inserts.
    start_cpu: f64,
}

impl Measured {
    fn cost(&self) -> EventCost {
        self.after.cost_since(&self.before, self.inserts, self.start_cpu)
    }
}

impl Ingest<'_> {
    /// Measures each cost once, on a database that nothing has used.
    pub(super) async fn event_costs(&mut self, round: u32) -> anyhow::Result<()> {
        let database = format!("newcycle_bench_cost_{round}");
        let mut stack = self.bench.start(&database, &[]).await?;
        let client = self.bench.connect(&database).await?;
        client.batch_execute(TABLES).await?;
        let mut folded = self.inserts(&database, &client, Table::Ours, true).await?;
        let notifier = ServiceKind::StatsNotifier;
        ensure!(stack.stop_one(notifier, WAIT_TIMEOUT).await, "stats-notifier did not stop well");
        // Its sessions report the dead tuples when they end.
        let ended = "
            SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'newcycle_notifier')";
        until(&client, ended, "the sessions of stats-notifier ended").await?;
        folded.after.read_late_reports(self.bench.cluster, &client).await?;
        shut_gate(&client).await?;
        let raw = self.inserts(&database, &client, Table::Raw, false).await?;
        let alone = self.inserts(&database, &client, Table::Ours, false).await?;
        for (name, measured) in [
            ("raw INSERT", raw),
            ("INSERT with our triggers, alone", alone),
            ("INSERT until folded and purged", folded),
        ] {
            add(&mut self.costs, name, measured.cost());
        }
        drop(client);
        self.drop_database(stack, &database).await
    }

    /// Inserts for a while, and if asked to waits until all was folded and purged.
    async fn inserts(
        &self,
        database: &str,
        client: &Client,
        table: Table,
        until_purged: bool,
    ) -> anyhow::Result<Measured> {
        let cluster = self.bench.cluster;
        let start_cpu = self.bench.start_cpu(database, &table.insert(), CLIENTS).await?;
        if until_purged {
            until_log_is_empty(client).await?;
        }
        let before = DatabaseWork::read(cluster, client).await?;
        let load = self.pgbench(database, table, CLIENTS).await?;
        if until_purged {
            until_log_is_empty(client).await?;
        }
        let after = DatabaseWork::read(cluster, client).await?;
        Ok(Measured { before, after, inserts: load.answers, start_cpu })
    }
}

/// Adds what one event cost.
pub(super) fn add(costs: &mut Rounds, name: &str, cost: EventCost) {
    let EventCost { cpu_us, wal_bytes, dead_tuples } = cost;
    costs.add(name, "µs of CPU", cpu_us);
    costs.add(name, "bytes of WAL", wal_bytes);
    costs.add(name, "dead tuples", dead_tuples);
}
