//! `cargo xtask bench ingest`: how many events a second are stored by each way, next to plain SQL.
//!
//! Invariant: each round has a new database, so no table grows into the results of the next round,
//! and the phases of a round begin with another one each time. `raw_items` has the columns, keys,
//! indexes and checks of `items`, but no trigger; `notify_items` also has the plain trigger that
//! ours is compared with.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use local_stack::stack::{ServiceKind, Stack};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;
use tokio_postgres::Client;
use uuid::Uuid;

use super::backfill::{self, Backfill, LiveStack, Statement};
use super::figures::{self, Figure, Rounds};
use super::load::{self, Load};
use super::usage::{CpuShares, CpuTime, DatabaseWork, EventCost};
use super::{Bench, ephemeral_stack};

/// How much to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct IngestOptions {
    /// Rounds; each measures everything once.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of load of each phase of a round.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Events of the backfill.
    #[arg(long, default_value_t = 1_000_000)]
    events: u32,
    /// One round of a second with the build that `up` uses, which shows only that it works.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "events"])]
    pub(super) short: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

/// Rows of an upload for each second of `--seconds`.
const UPLOAD_ROWS_PER_SECOND: u32 = 20_000;

/// Sessions report what they did to a table within this time, even if they are idle afterwards
/// (`PGSTAT_IDLE_INTERVAL` of Postgres).
const REPORT_TIME: Duration = Duration::from_secs(11);

/// How long a stopped load is given to end in the services.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Connections or clients of the phases that the ratios compare.
const MANY: u32 = 64;

/// Clients that the cost of an event is measured with. Logging in costs CPU time as well, which
/// must be little next to that of the events.
const COST_CLIENTS: u32 = 16;

/// The longest load while the leader is frozen. Some seconds later, Postgres ends the leader's
/// sessions, and the gate opens.
const FROZEN_SECONDS: u32 = 4;

const RATE: &str = "rows/s";
const P50: &str = "µs, p50";
const P99: &str = "µs, p99";

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct IngestReport {
    postgres: String,
    cores: usize,
    rounds: u32,
    seconds: u32,
    /// What `pg_test_fsync` says of the disk; empty in the short form.
    fsync: Vec<FsyncMethod>,
    figures: Vec<Figure>,
    ratios: Vec<Figure>,
    /// Mean parts of a core, in percent.
    cpu: Vec<PhaseCpu>,
    event_cost: Vec<NamedCost>,
    backfill: Backfill,
}

/// A way to write to the disk.
#[derive(Debug, PartialEq, Serialize)]
struct FsyncMethod {
    method: String,
    operations_per_second: f64,
}

#[derive(Debug, Serialize)]
struct PhaseCpu {
    phase: String,
    percent: CpuShares,
}

#[derive(Debug, Serialize)]
struct NamedCost {
    name: &'static str,
    #[serde(flatten)]
    cost: EventCost,
}

/// A way to store events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Single rows by pgbench.
    Sql { table: Table, clients: u32 },
    /// Single rows by wrk.
    Rest { connections: u32 },
    /// One streamed request of many lines.
    Upload,
    /// The same rows by COPY of psql into the raw table.
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Raw,
    Notify,
    Ours,
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw_items",
            Self::Notify => "notify_items",
            Self::Ours => "items",
        }
    }

    fn insert(self) -> String {
        let base_item = ephemeral_stack::BASE_ITEM;
        format!("INSERT INTO {} VALUES (gen_random_uuid(), '{base_item}', now());\n", self.name())
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql { table, clients } => {
                let table = match table {
                    Table::Raw => "raw SQL",
                    Table::Notify => "SQL with a NOTIFY trigger",
                    Table::Ours => "SQL with our triggers",
                };
                write!(formatter, "{table}, clients: {clients}")
            }
            Self::Rest { connections } => write!(formatter, "REST, connections: {connections}"),
            Self::Upload => formatter.write_str("NDJSON upload"),
            Self::Copy => formatter.write_str("COPY into the raw table"),
        }
    }
}

const fn sql(table: Table, clients: u32) -> Phase {
    Phase::Sql { table, clients }
}

const fn rest(connections: u32) -> Phase {
    Phase::Rest { connections }
}

const PHASES: [Phase; 12] = [
    sql(Table::Raw, 1),
    sql(Table::Notify, 1),
    sql(Table::Ours, 1),
    rest(1),
    sql(Table::Raw, MANY),
    sql(Table::Notify, MANY),
    sql(Table::Ours, MANY),
    rest(16),
    rest(MANY),
    rest(256),
    Phase::Upload,
    Phase::Copy,
];

/// What is compared with what.
const RATIOS: [(Phase, Phase, &str); 9] = [
    (rest(MANY), sql(Table::Raw, MANY), RATE),
    (sql(Table::Ours, MANY), sql(Table::Raw, MANY), RATE),
    (sql(Table::Notify, MANY), sql(Table::Raw, MANY), RATE),
    (sql(Table::Ours, 1), sql(Table::Raw, 1), RATE),
    (sql(Table::Notify, 1), sql(Table::Raw, 1), RATE),
    (Phase::Upload, Phase::Copy, RATE),
    (rest(1), sql(Table::Raw, 1), RATE),
    (rest(MANY), sql(Table::Raw, MANY), P50),
    (rest(MANY), sql(Table::Raw, MANY), P99),
];

impl IngestOptions {
    /// What continuous integration runs.
    pub(super) const fn short() -> Self {
        Self { rounds: 1, seconds: 1, events: 5_000, short: true, json: false }
    }
}

/// What the rounds collect, and the files that they share.
struct Ingest<'a> {
    bench: &'a Bench<'a>,
    seconds: u32,
    wrk_script: PathBuf,
    upload_rows: u32,
    ndjson: PathBuf,
    csv: PathBuf,
    rounds: Rounds,
    cpu: Vec<(Phase, Vec<CpuShares>)>,
}

pub(super) async fn run(
    bench: &Bench<'_>,
    options: &IngestOptions,
) -> anyhow::Result<IngestReport> {
    let short = IngestOptions::short();
    let options = if options.short { &short } else { options };
    ensure!(options.rounds > 0 && options.seconds > 0 && options.events > 0, "nothing to measure");
    let fsync = if options.short { Vec::new() } else { test_fsync(bench).await? };
    let folder = &bench.settings.folder;
    let mut ingest = Ingest {
        bench,
        seconds: options.seconds,
        wrk_script: folder.join("post-items.lua"),
        upload_rows: options.seconds * UPLOAD_ROWS_PER_SECOND,
        ndjson: folder.join("items.ndjson"),
        csv: folder.join("items.csv"),
        rounds: Rounds::default(),
        cpu: PHASES.map(|phase| (phase, Vec::new())).into(),
    };
    load::write_script(&ingest.wrk_script)?;
    ingest.write_rows()?;
    for round in 0..options.rounds {
        println!("== round {} of {}", round + 1, options.rounds);
        ingest.round(round).await?;
    }
    let report_time = if options.short { Duration::ZERO } else { REPORT_TIME };
    println!("== the cost of an event");
    let mut event_cost = ingest.event_cost(report_time).await?;
    println!("== a backfill of {} events", options.events);
    let live = LiveStack::start(bench).await?;
    let backfill = live.measure(bench, Statement::Insert, options.events, report_time).await?;
    live.stop().await?;
    event_cost.push(NamedCost { name: "backfill, until folded and purged", cost: backfill.cost });
    let ratio = |(of, to, unit): (Phase, Phase, &str)| {
        ingest.rounds.ratio(&of.to_string(), &to.to_string(), unit)
    };
    let report = IngestReport {
        postgres: bench.installation.version().to_string(),
        cores: std::thread::available_parallelism()?.get(),
        rounds: options.rounds,
        seconds: options.seconds,
        fsync,
        figures: ingest.rounds.figures(),
        ratios: RATIOS.into_iter().filter_map(ratio).collect(),
        cpu: ingest
            .cpu
            .iter()
            .map(|(phase, shares)| PhaseCpu {
                phase: phase.to_string(),
                percent: CpuShares::mean(shares),
            })
            .collect(),
        event_cost,
        backfill,
    };
    report.print();
    Ok(report)
}

impl Ingest<'_> {
    /// Writes the rows of the uploads before any clock starts.
    fn write_rows(&self) -> anyhow::Result<()> {
        let mut ndjson = BufWriter::new(File::create(&self.ndjson)?);
        let mut csv = BufWriter::new(File::create(&self.csv)?);
        let base_item = ephemeral_stack::BASE_ITEM;
        let start = OffsetDateTime::now_utc() - Duration::from_secs(3600);
        for number in 0..self.upload_rows {
            let id = Uuid::now_v7();
            let created_at = (start + Duration::from_millis(number.into())).format(&Rfc3339)?;
            writeln!(
                ndjson,
                r#"{{"id":"{id}","base_item_id":"{base_item}","created_at":"{created_at}"}}"#
            )?;
            writeln!(csv, "{id},{base_item},{created_at}")?;
        }
        ndjson.flush()?;
        csv.flush()?;
        Ok(())
    }

    /// Measures each phase once, on a database that nothing has used.
    async fn round(&mut self, round: u32) -> anyhow::Result<()> {
        let database = format!("newcycle_bench_{round}");
        let stack = self.bench.start(&database, &[]).await?;
        let client = self.bench.connect(&database).await?;
        client.batch_execute(TABLES).await?;
        for step in 0..PHASES.len() {
            let phase = PHASES[(step + round as usize * 5) % PHASES.len()];
            self.measure(&database, &stack, &client, phase)
                .await
                .with_context(|| format!("measuring: {phase}"))?;
        }
        drop(client);
        self.drop_database(stack, &database).await
    }

    async fn drop_database(&self, stack: Stack, database: &str) -> anyhow::Result<()> {
        ephemeral_stack::stop(stack).await?;
        let client = self.bench.connect("postgres").await?;
        client.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await?;
        Ok(())
    }

    async fn measure(
        &mut self,
        database: &str,
        stack: &Stack,
        client: &Client,
        phase: Phase,
    ) -> anyhow::Result<()> {
        let before = CpuTime::read(self.bench.cluster, stack)?;
        let started = Instant::now();
        let load = match phase {
            Phase::Sql { table, clients } => {
                self.pgbench(database, table, clients, self.seconds).await?
            }
            Phase::Rest { connections } => self.rest(stack, client, connections).await?,
            Phase::Upload => self.upload(stack, client).await?,
            Phase::Copy => self.copy(database, client).await?,
        };
        let seconds = started.elapsed().as_secs_f64();
        let cpu = CpuTime::read(self.bench.cluster, stack)?.since(&before);
        println!("{:<45} {:>9.0} {RATE}", phase.to_string(), load.rate);
        let name = phase.to_string();
        self.rounds.add(&name, RATE, load.rate);
        if matches!(phase, Phase::Sql { .. } | Phase::Rest { .. }) {
            self.rounds.add(&name, P50, load.p50_us);
            self.rounds.add(&name, P99, load.p99_us);
        }
        if matches!(phase, Phase::Rest { .. } | Phase::Upload) {
            let ingest_api = ServiceKind::IngestApi.name();
            let time = cpu.services.get(ingest_api).copied().unwrap_or_default();
            self.rounds.add(&name, "µs of CPU of ingest-api by row", time * 1e6 / load.answers);
        }
        let mut shares = self.cpu.iter_mut().filter(|(of, _)| *of == phase);
        if let Some((_, shares)) = shares.next() {
            shares.push(cpu.shares(seconds));
        }
        Ok(())
    }

    async fn pgbench(
        &self,
        database: &str,
        table: Table,
        clients: u32,
        seconds: u32,
    ) -> anyhow::Result<Load> {
        let Bench { installation, settings, .. } = *self.bench;
        load::pgbench(installation, settings, database, &table.insert(), clients, seconds).await
    }

    /// Posts items, and compares the rows with the answers: a request that was not answered when
    /// the load ended may have been stored.
    async fn rest(&self, stack: &Stack, client: &Client, connections: u32) -> anyhow::Result<Load> {
        let before = settled_items(client).await?;
        let url = stack.url(ServiceKind::IngestApi);
        let load = load::wrk(&self.wrk_script, &url, connections, self.seconds).await?;
        let rows = settled_items(client).await? - before;
        let unanswered = rows - load.answers;
        ensure!(
            (0.0..=f64::from(connections)).contains(&unanswered),
            "{rows} rows were stored, but {} requests of {connections} connections were answered",
            load.answers
        );
        Ok(load)
    }

    async fn upload(&self, stack: &Stack, client: &Client) -> anyhow::Result<Load> {
        let before = settled_items(client).await?;
        let mut curl = Command::new("curl");
        // Without `Expect:`, curl would wait for a permission to send.
        curl.args(["--silent", "--show-error", "--fail-with-body", "--request", "POST"])
            .args(["--header", "content-type: application/x-ndjson", "--header", "Expect:"])
            .arg("--upload-file")
            .arg(&self.ndjson)
            .arg(format!("{}/items", stack.url(ServiceKind::IngestApi)))
            .kill_on_drop(true);
        let started = Instant::now();
        let answer = load::output(curl, "curl").await?;
        let load = self.bulk_load(started.elapsed());
        let rows = settled_items(client).await? - before;
        self.check_rows(rows).with_context(|| format!("ingest-api answered {answer}"))?;
        Ok(load)
    }

    async fn copy(&self, database: &str, client: &Client) -> anyhow::Result<Load> {
        let before = rows(client, Table::Raw).await?;
        let mut psql = Command::from(self.bench.installation.program("psql", self.bench.settings)?);
        let copy = format!("\\copy raw_items FROM '{}' (FORMAT csv)", self.csv.display());
        psql.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", &copy])
            .arg(database)
            .kill_on_drop(true);
        let started = Instant::now();
        load::output(psql, "psql").await?;
        let load = self.bulk_load(started.elapsed());
        self.check_rows(rows(client, Table::Raw).await? - before)?;
        Ok(load)
    }

    fn bulk_load(&self, time: Duration) -> Load {
        let rows = f64::from(self.upload_rows);
        Load { answers: rows, rate: rows / time.as_secs_f64(), p50_us: 0.0, p99_us: 0.0 }
    }

    #[expect(clippy::float_cmp, reason = "whole numbers")]
    fn check_rows(&self, rows: f64) -> anyhow::Result<()> {
        ensure!(rows == f64::from(self.upload_rows), "{rows} of {} rows came", self.upload_rows);
        Ok(())
    }

    /// What a single-row INSERT of many clients costs the database: without triggers; with ours
    /// alone, while the leader is frozen; and with all that follows, until the log is empty.
    async fn event_cost(&self, report_time: Duration) -> anyhow::Result<Vec<NamedCost>> {
        let database = "newcycle_bench_cost";
        let stack = self.bench.start(database, &[]).await?;
        let client = self.bench.connect(database).await?;
        client.batch_execute(TABLES).await?;
        let mut costs = Vec::new();
        for (name, table) in
            [("raw INSERT", Table::Raw), ("INSERT until folded and purged", Table::Ours)]
        {
            let mut before = DatabaseWork::read(self.bench.cluster, &client).await?;
            before.read_late_reports(self.bench.cluster, &client, report_time).await?;
            let load = self.pgbench(database, table, COST_CLIENTS, self.seconds).await?;
            until_log_is_empty(&client).await?;
            let mut work = DatabaseWork::read(self.bench.cluster, &client).await?;
            work.read_late_reports(self.bench.cluster, &client, report_time).await?;
            costs.push(NamedCost { name, cost: work.cost_since(&before, load.answers) });
        }
        // Frozen under load, so that the gate is in the state that it has under load.
        let seconds = self.seconds.min(FROZEN_SECONDS);
        let load = || self.pgbench(database, Table::Ours, COST_CLIENTS, seconds);
        let (warm_up, frozen) = tokio::join!(load(), async {
            let until = load::duration(COST_CLIENTS, seconds) - Duration::from_millis(500);
            tokio::time::sleep(until).await;
            stack.freeze(ServiceKind::StatsNotifier).await
        });
        warm_up?;
        let frozen = frozen?;
        let before = DatabaseWork::read(self.bench.cluster, &client).await?;
        let load = load().await?;
        let work = DatabaseWork::read(self.bench.cluster, &client).await?;
        frozen.thaw();
        // The sessions of the frozen leader report what it did before.
        let cost = EventCost { dead_tuples: None, ..work.cost_since(&before, load.answers) };
        costs.insert(1, NamedCost { name: "INSERT with our triggers, alone", cost });
        drop(client);
        self.drop_database(stack, database).await?;
        Ok(costs)
    }
}

/// The tables that `items` is compared with.
const TABLES: &str = "
CREATE TABLE raw_items (
    LIKE items INCLUDING ALL, FOREIGN KEY (base_item_id) REFERENCES base_items (id)
);
CREATE TABLE notify_items (
    LIKE items INCLUDING ALL, FOREIGN KEY (base_item_id) REFERENCES base_items (id)
);
CREATE FUNCTION notify_item() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN PERFORM pg_notify('notify_items', ''); RETURN NULL; END $$;
CREATE TRIGGER notify AFTER INSERT ON notify_items
FOR EACH ROW EXECUTE FUNCTION notify_item();
";

/// The rows of a table.
async fn rows(client: &Client, table: Table) -> anyhow::Result<f64> {
    let count = format!("SELECT count(*)::float8 FROM {}", table.name());
    Ok(client.query_one(&count, &[]).await?.get(0))
}

/// The rows of `items`, once requests that were left unanswered add no more.
#[expect(clippy::float_cmp, reason = "whole numbers")]
async fn settled_items(client: &Client) -> anyhow::Result<f64> {
    let mut last = rows(client, Table::Ours).await?;
    loop {
        tokio::time::sleep(SETTLE_TIME).await;
        let now = rows(client, Table::Ours).await?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

async fn until_log_is_empty(client: &Client) -> anyhow::Result<()> {
    let exists = "SELECT EXISTS (SELECT FROM count_log)";
    while client.query_one(exists, &[]).await?.get(0) {
        tokio::time::sleep(SETTLE_TIME).await;
    }
    Ok(())
}

async fn test_fsync(bench: &Bench<'_>) -> anyhow::Result<Vec<FsyncMethod>> {
    println!("== pg_test_fsync");
    let mut test = Command::from(bench.installation.program("pg_test_fsync", bench.settings)?);
    test.args(["--secs-per-test", "1", "--filename"])
        .arg(bench.settings.folder.join("fsync-test"))
        .kill_on_drop(true);
    let report = load::output(test, "pg_test_fsync").await?;
    let methods = parse_fsync(&report);
    if methods.is_empty() {
        bail!("pg_test_fsync printed:\n{report}");
    }
    Ok(methods)
}

/// The methods of the first section, which writes one block of 8 kB, as a small commit does.
fn parse_fsync(report: &str) -> Vec<FsyncMethod> {
    let lines = report.lines().skip_while(|line| !line.contains("using one 8kB write"));
    let section = lines.take_while(|line| !line.contains("using two 8kB writes"));
    section
        .filter_map(|line| {
            let (line, _) = line.split_once("ops/sec")?;
            let (method, rate) = line.trim().split_once(char::is_whitespace)?;
            let operations_per_second = rate.trim().parse().ok()?;
            Some(FsyncMethod { method: method.to_owned(), operations_per_second })
        })
        .collect()
}

impl IngestReport {
    fn print(&self) {
        println!("== Postgres {}, {} cores", self.postgres, self.cores);
        for FsyncMethod { method, operations_per_second } in &self.fsync {
            println!("pg_test_fsync, one block: {method:<20} {operations_per_second:>10.0}/s");
        }
        let title = format!("rounds: {}, {} s for each phase", self.rounds, self.seconds);
        figures::print(&title, &self.figures);
        figures::print("ratios of the same round", &self.ratios);
        println!("== CPU, percent of one core");
        for PhaseCpu { phase, percent } in &self.cpu {
            let mut line = String::new();
            for (name, share) in percent.parts() {
                // Writing to a string cannot fail.
                let _ = write!(line, "  {name} {share:.0}");
            }
            println!("{phase:<40}{line}");
        }
        println!("== what an event costs the database");
        println!("{:<40} {:>8} {:>10} {:>12}", "", "CPU, µs", "WAL, bytes", "dead tuples");
        for NamedCost { name, cost } in &self.event_cost {
            let EventCost { cpu_us, wal_bytes, dead_tuples } = cost;
            let dead_tuples = dead_tuples.map_or("-".to_owned(), |number| format!("{number:.2}"));
            println!("{name:<40} {cpu_us:>8.1} {wal_bytes:>10.0} {dead_tuples:>12}");
        }
        backfill::print_header();
        self.backfill.print(Statement::Insert);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_section_of_pg_test_fsync_is_read() {
        let report = "\
Compare file sync methods using one 8kB write:
        open_datasync                      1000.500 ops/sec     999 usecs/op
        fsync_writethrough                              n/a

Compare file sync methods using two 8kB writes:
        open_datasync                       500.000 ops/sec    1999 usecs/op
";
        let method = "open_datasync".to_owned();
        assert_eq!(parse_fsync(report), [FsyncMethod { method, operations_per_second: 1000.5 }]);
    }

    #[test]
    fn every_ratio_compares_phases_that_are_measured() {
        for (of, to, _) in RATIOS {
            assert!(PHASES.contains(&of) && PHASES.contains(&to), "{of} ÷ {to}");
        }
    }
}
