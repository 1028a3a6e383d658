//! `cargo xtask bench ingest`: how many events a second are stored by each way, next to plain SQL.
//!
//! Invariant: each round has a new database, so no table grows into the results of the next round.
//! Each phase begins when the rows of the one before are folded and purged, and the order of the
//! phases changes from round to round. `raw_items` has the columns, keys, indexes and checks of
//! `items`, but no trigger; `notify_items` also has the plain trigger that ours is compared with.

mod cost;
mod phases;
mod report;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use local_stack::internal;
use local_stack::stack::{ServiceKind, Stack};
use local_stack::test_database::TEST_KEY;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;
use tokio_postgres::Client;
use uuid::Uuid;

use self::phases::{PHASES, Phase, RATIOS, Table};
pub(super) use self::report::IngestReport;
use self::report::PhaseCpu;
use super::backfill::{LiveStack, Statement};
use super::figures::Rounds;
use super::fsync::test_fsync;
use super::load::{self, Load};
use super::usage::{CpuShares, CpuTime};
use super::wait::{check_wait, until_log_is_empty};
use super::{Bench, ephemeral_stack};
use crate::secrets::write_private;

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

const RATE: &str = "rows/s";
const P50: &str = "µs, p50";
const P99: &str = "µs, p99";

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
    /// The header with the key, for curl.
    header: PathBuf,
    ndjson: PathBuf,
    csv: PathBuf,
    rounds: Rounds,
    costs: Rounds,
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
        header: folder.join("header"),
        ndjson: folder.join("items.ndjson"),
        csv: folder.join("items.csv"),
        rounds: Rounds::default(),
        costs: Rounds::default(),
        cpu: PHASES.map(|phase| (phase, Vec::new())).into(),
    };
    load::write_script(&ingest.wrk_script)?;
    write_private(&ingest.header, &format!("authorization: Bearer {TEST_KEY}\n"))?;
    ingest.write_rows()?;
    for round in 0..options.rounds {
        println!("== round {} of {}", round + 1, options.rounds);
        ingest.round(round).await?;
        println!("== the cost of an event");
        ingest.event_costs(round).await?;
    }
    let report_time = if options.short { Duration::ZERO } else { REPORT_TIME };
    println!("== a backfill of {} events", options.events);
    let live = LiveStack::start(bench).await?;
    let backfill = live.measure(bench, Statement::Insert, options.events, report_time).await?;
    live.stop().await?;
    cost::add(&mut ingest.costs, "backfill, until folded and purged", backfill.cost);
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
        event_cost: ingest.costs.figures(),
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
        for phase in phases::of_round(round) {
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

    /// Measures a phase, and compares the rows with the answers: what was not answered when the
    /// load ended may have been stored.
    async fn measure(
        &mut self,
        database: &str,
        stack: &Stack,
        client: &Client,
        phase: Phase,
    ) -> anyhow::Result<()> {
        until_log_is_empty(client).await?;
        let rows_before = settled_rows(client, phase.table()).await?;
        let inserts_before = Inserts::of(stack).await?;
        let before = CpuTime::read(self.bench.cluster, stack)?;
        let started = Instant::now();
        let load = match phase {
            Phase::Sql { table, clients } => self.pgbench(database, table, clients).await?,
            Phase::Rest { connections } => {
                let url = stack.url(ServiceKind::IngestApi);
                load::wrk(&self.wrk_script, &url, connections, self.seconds).await?
            }
            Phase::Upload => self.upload(stack).await?,
            Phase::Copy => self.copy(database).await?,
        };
        let seconds = started.elapsed().as_secs_f64();
        let cpu = CpuTime::read(self.bench.cluster, stack)?.since(&before);
        let rows = settled_rows(client, phase.table()).await? - rows_before;
        ensure!(
            (0.0..=f64::from(phase.unanswered())).contains(&(rows - load.answers)),
            "{rows} rows were stored, but {} were answered",
            load.answers
        );
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
            let Inserts { rows, inserts } = Inserts::of(stack).await?;
            let rows = rows - inserts_before.rows;
            self.rounds.add(&name, "rows by insert", rows / (inserts - inserts_before.inserts));
        }
        let mut shares = self.cpu.iter_mut().filter(|(of, _)| *of == phase);
        if let Some((_, shares)) = shares.next() {
            shares.push(cpu.shares(seconds));
        }
        Ok(())
    }

    async fn pgbench(&self, database: &str, table: Table, clients: u32) -> anyhow::Result<Load> {
        let Bench { installation, settings, .. } = *self.bench;
        let insert = table.insert();
        load::pgbench(installation, settings, database, &insert, clients, self.seconds).await
    }

    async fn upload(&self, stack: &Stack) -> anyhow::Result<Load> {
        let mut curl = Command::new("curl");
        // Without `Expect:`, curl would wait for a permission to send.
        curl.args(["--silent", "--show-error", "--fail-with-body", "--request", "POST"])
            .args(["--header", "content-type: application/x-ndjson", "--header", "Expect:"])
            .args(["--header", &format!("@{}", self.header.display())])
            .arg("--upload-file")
            .arg(&self.ndjson)
            .arg(format!("{}/items", stack.url(ServiceKind::IngestApi)))
            .kill_on_drop(true);
        let started = Instant::now();
        load::output(curl, "curl").await?;
        Ok(self.bulk_load(started.elapsed()))
    }

    async fn copy(&self, database: &str) -> anyhow::Result<Load> {
        let mut psql = Command::from(self.bench.installation.program("psql", self.bench.settings)?);
        let copy = format!(
            "\\copy raw_items (id, base_item_id, created_at) FROM '{}' (FORMAT csv)",
            self.csv.display()
        );
        psql.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", &copy])
            .arg(database)
            .kill_on_drop(true);
        let started = Instant::now();
        load::output(psql, "psql").await?;
        Ok(self.bulk_load(started.elapsed()))
    }

    fn bulk_load(&self, time: Duration) -> Load {
        let rows = f64::from(self.upload_rows);
        Load { answers: rows, rate: rows / time.as_secs_f64(), p50_us: 0.0, p99_us: 0.0 }
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

/// The rows of a table, once requests that were left unanswered add no more.
#[expect(clippy::float_cmp, reason = "whole numbers")]
async fn settled_rows(client: &Client, table: Table) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut last = rows(client, table).await?;
    loop {
        tokio::time::sleep(SETTLE_TIME).await;
        let now = rows(client, table).await?;
        if now == last {
            return Ok(now);
        }
        last = now;
        check_wait(started, "requests that were left unanswered stored no more rows")?;
    }
}

/// What ingest-api has sent to `items` until now: groups of single rows, or parts of uploads.
#[derive(Debug, PartialEq)]
struct Inserts {
    rows: f64,
    inserts: f64,
}

impl Inserts {
    async fn of(stack: &Stack) -> anyhow::Result<Self> {
        let url = format!("{}/metrics", stack.internal_url(ServiceKind::IngestApi));
        let answer = internal::get(url).await?.error_for_status()?;
        Self::parse(&answer.text().await?)
            .context("the metrics of ingest-api have no ingest_insert_rows of items")
    }

    fn parse(metrics: &str) -> Option<Self> {
        let value = |part: &str| {
            let name = format!("ingest_insert_rows_{part}{{table=\"public.items\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name))?.parse().ok()
        };
        Some(Self { rows: value("sum")?, inserts: value("count")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inserts_are_those_of_items() {
        let metrics = "\
ingest_insert_rows_sum{table=\"public.users\"} 7
ingest_insert_rows_bucket{table=\"public.items\",le=\"1\"} 1
ingest_insert_rows_sum{table=\"public.items\"} 12
ingest_insert_rows_count{table=\"public.items\"} 3
";
        assert_eq!(Inserts::parse(metrics), Some(Inserts { rows: 12.0, inserts: 3.0 }));
        assert_eq!(Inserts::parse(""), None);
    }
}
