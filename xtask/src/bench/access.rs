//! `cargo xtask bench access`: what keys cost, next to the same services in open mode, and what a
//! flood of wrong keys does.
//!
//! Invariant: what is compared takes turns in the same run. CPU time and instructions are compared,
//! and not times, because the load generators share the processors with the services.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use access_kit::key::Key;
use anyhow::{Context, ensure};
use local_stack::stack::{Instance, Log, Replicas, ServiceKind, Stack, Variable};
use serde::Serialize;
use tokio::process::Command;

use super::fanout::Fanout;
use super::figures::{self, Figure, Rounds};
use super::load::{self, output};
use super::usage::{process_cpu, resident_bytes};
use super::{Bench, ephemeral_stack};
use crate::secrets::write_private;

/// How much to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct AccessOptions {
    /// Rounds; each measures everything but the instructions once, with keys and in open mode.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Seconds of load in each round.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Streams of which the memory is measured.
    #[arg(long, default_value_t = 2_000)]
    readers: u32,
    /// Requests with wrong keys.
    #[arg(long, default_value_t = 1_000_000)]
    wrong_keys: u64,
    /// A moment of each with the build that `up` uses, which shows only that it works.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "readers", "wrong_keys"])]
    pub(super) short: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

impl AccessOptions {
    /// What continuous integration runs.
    pub(super) const fn short() -> Self {
        Self { rounds: 1, seconds: 1, readers: 50, wrong_keys: 2_000, short: true, json: false }
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct AccessReport {
    rounds: u32,
    figures: Vec<Figure>,
    ratios: Vec<Figure>,
    /// Instructions of the gateway by delivery, with keys and in open mode; `None` in the short
    /// form.
    instructions: Option<[f64; 2]>,
    flood: FloodReport,
}

/// What a flood of wrong keys did to a gateway.
#[derive(Debug, Serialize)]
struct FloodReport {
    requests: u64,
    seconds: f64,
    /// How much the gateway's memory grew after the first tenth of the requests, in bytes.
    grown_bytes: f64,
    /// The lines that the gateway logged.
    log_lines: u64,
}

const OPEN: &str = "in open mode";
const KEYS: &str = "with a key";
const UNDER_WRONG_KEYS: &str = "a producer under a flood of wrong keys";
const UNDER_404: &str = "a producer under a flood of 404s";

const BY_LONE_POST: &str = "µs of CPU of ingest-api by POST, one at a time";
const BY_POST: &str = "µs of CPU of ingest-api by POST, 64 at a time";
const MEMORY: &str = "bytes of memory of the gateway by stream";
const RATE: &str = "rows/s";

const FLOOD_RATE: &str = "requests/s of the flood";

/// How long each connection of a flood next to a producer pauses before a request, in milliseconds:
/// both floods have the same rate then.
const FLOOD_PAUSE: u32 = 20;

/// Connections of a load.
const CONNECTIONS: u32 = 64;

/// Connections of the producer next to a flood.
const PRODUCER_CONNECTIONS: u32 = 16;

/// Different wrong keys; the load repeats them.
const DIFFERENT_KEYS: usize = 10_000;

/// Readers and seconds of the run under callgrind, which is about fifty times as slow.
const CALLGRIND_READERS: u32 = 100;
const CALLGRIND_TIME: Duration = Duration::from_secs(30);

pub(super) async fn run(
    bench: &Bench<'_>,
    options: &AccessOptions,
) -> anyhow::Result<AccessReport> {
    let short = AccessOptions::short();
    let options = if options.short { &short } else { options };
    ensure!(options.rounds > 0 && options.seconds > 0, "nothing to measure");
    let mut rounds = Rounds::default();
    posts(bench, options, &mut rounds).await?;
    memory(bench, options, &mut rounds).await?;
    let instructions = if options.short { None } else { Some(instructions(bench).await?) };
    let flood = flood(bench, options, &mut rounds).await?;
    let ratios = [
        rounds.ratio(OPEN, KEYS, BY_LONE_POST),
        rounds.ratio(OPEN, KEYS, BY_POST),
        rounds.ratio(UNDER_WRONG_KEYS, UNDER_404, RATE),
    ];
    let report = AccessReport {
        rounds: options.rounds,
        figures: rounds.figures(),
        ratios: ratios.into_iter().flatten().collect(),
        instructions,
        flood,
    };
    report.print();
    Ok(report)
}

/// Both modes, the first one first in every second round.
fn modes(round: u32) -> [&'static str; 2] {
    if round.is_multiple_of(2) { [OPEN, KEYS] } else { [KEYS, OPEN] }
}

fn variables(service: ServiceKind, mode: &str) -> Vec<Variable<'static>> {
    let open = (service, "NEWCYCLE__ACCESS__MODE", "open");
    if mode == OPEN { vec![open] } else { Vec::new() }
}

/// The process of a service.
fn process(stack: &Stack, service: ServiceKind) -> anyhow::Result<u32> {
    let mut processes = stack.process_ids();
    let found = processes.find_map(|(instance, id)| (instance.service == service).then_some(id));
    found.with_context(|| format!("{service} does not run"))
}

/// The CPU time of ingest-api for a POST of one row.
async fn posts(
    bench: &Bench<'_>,
    options: &AccessOptions,
    rounds: &mut Rounds,
) -> anyhow::Result<()> {
    let scripts = ["post-items-without-key.lua", "post-items.lua"];
    let [open, keys] = scripts.map(|name| bench.settings.folder.join(name));
    load::write_open_script(&open)?;
    load::write_script(&keys)?;
    let ingest = ServiceKind::IngestApi;
    let stacks = [
        (OPEN, open, bench.start("newcycle_bench_open", &variables(ingest, OPEN)).await?),
        (KEYS, keys, bench.start("newcycle_bench_keys", &[]).await?),
    ];
    for round in 0..options.rounds {
        println!("== POST, round {} of {}", round + 1, options.rounds);
        for (unit, connections) in [(BY_LONE_POST, 1), (BY_POST, CONNECTIONS)] {
            for mode in modes(round) {
                let (_, script, stack) =
                    stacks.iter().find(|(of, ..)| *of == mode).context("a mode")?;
                let process = process(stack, ingest)?;
                let before = process_cpu(process)?;
                let url = stack.url(ingest);
                let load = load::wrk(script, &url, connections, options.seconds).await?;
                let cpu = process_cpu(process)? - before;
                rounds.add(mode, unit, cpu * 1e6 / load.answers);
            }
        }
    }
    for (.., stack) in stacks {
        ephemeral_stack::stop(stack).await?;
    }
    Ok(())
}

/// The memory of a stream, each time in a new gateway.
async fn memory(
    bench: &Bench<'_>,
    options: &AccessOptions,
    rounds: &mut Rounds,
) -> anyhow::Result<()> {
    for round in 0..options.rounds {
        println!("== streams, round {} of {}", round + 1, options.rounds);
        for mode in modes(round) {
            let database = format!("newcycle_bench_streams_{round}_{}", mode.len());
            let variables = variables(ServiceKind::SseGateway, mode);
            let mut fanout = Fanout::start(bench, &database, &variables, options.readers).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            fanout.check()?;
            let grown = resident_bytes(fanout.gateway)? - fanout.memory_before;
            rounds.add(mode, MEMORY, grown / f64::from(options.readers));
            fanout.stop().await?;
        }
    }
    Ok(())
}

/// The instructions of the gateway by delivery, with keys and in open mode, counted by callgrind.
async fn instructions(bench: &Bench<'_>) -> anyhow::Result<[f64; 2]> {
    let folder = bench.settings.folder.join("callgrind");
    std::fs::create_dir_all(&folder)?;
    let programs = under_callgrind(&bench.programs, &folder)?;
    let bench = Bench { programs, ..*bench };
    let mut counted = [0.0; 2];
    for (mode, counted) in [KEYS, OPEN].into_iter().zip(&mut counted) {
        println!("== instructions, {mode}: {} s under callgrind", CALLGRIND_TIME.as_secs());
        let database = format!("newcycle_bench_callgrind_{}", mode.len());
        let variables = variables(ServiceKind::SseGateway, mode);
        let mut fanout = Fanout::start(&bench, &database, &variables, CALLGRIND_READERS).await?;
        control("--zero", fanout.gateway).await?;
        let before = fanout.deliveries();
        tokio::time::sleep(CALLGRIND_TIME).await;
        control("--dump", fanout.gateway).await?;
        let deliveries = fanout.deliveries() - before;
        fanout.check()?;
        ensure!(deliveries > 0, "the gateway delivered nothing");
        #[expect(clippy::cast_precision_loss, reason = "a number of frames")]
        let number = deliveries as f64;
        *counted = dumped(&folder, fanout.gateway)? / number;
        fanout.stop().await?;
    }
    Ok(counted)
}

/// A folder of programs in which the gateway runs under callgrind.
fn under_callgrind(programs: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let made = folder.join("programs");
    std::fs::create_dir_all(&made)?;
    for service in ServiceKind::ALL {
        let name = service.name();
        let (program, link) = (programs.join(name), made.join(name));
        if service == ServiceKind::SseGateway {
            let script = format!(
                "#!/bin/sh\nexec valgrind --quiet --tool=callgrind --callgrind-out-file={}/out.%p {} \"$@\"\n",
                folder.display(),
                program.display()
            );
            std::fs::write(&link, script)?;
            std::fs::set_permissions(&link, std::fs::Permissions::from_mode(0o755))?;
        } else {
            std::os::unix::fs::symlink(&program, &link)?;
        }
    }
    Ok(made)
}

async fn control(command: &str, process: u32) -> anyhow::Result<()> {
    let mut control = Command::new("callgrind_control");
    control.args([command, &process.to_string()]);
    output(control, "callgrind_control").await.map(drop)
}

/// The instructions of the dump of a process.
fn dumped(folder: &Path, process: u32) -> anyhow::Result<f64> {
    let path = folder.join(format!("out.{process}.1"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).context("a dump without totals")
}

/// A flood of wrong keys: what it does to a gateway, and to a producer at the same ingest-api.
async fn flood(
    bench: &Bench<'_>,
    options: &AccessOptions,
    rounds: &mut Rounds,
) -> anyhow::Result<FloodReport> {
    let folder = &bench.settings.folder;
    let [posts, fast, wrong, missing] =
        ["post-items.lua", "fast-wrong-keys.lua", "wrong-keys.lua", "missing.lua"]
            .map(|name| folder.join(name));
    load::write_script(&posts)?;
    let list = write_wrong_keys(folder)?;
    load::write_wrong_keys_script(&fast, &list, 0)?;
    load::write_wrong_keys_script(&wrong, &list, FLOOD_PAUSE)?;
    load::write_missing_script(&missing, FLOOD_PAUSE)?;
    let lines = Arc::<AtomicU64>::default();
    let counter = Arc::clone(&lines);
    let log: Log = Arc::new(move |instance: Instance, _: &str| {
        if instance.service == ServiceKind::SseGateway {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (settings, programs) = (bench.settings, &bench.programs);
    let database = "newcycle_bench_flood";
    let stack =
        ephemeral_stack::start_logged(settings, database, Replicas::ONE, programs, &[], log)
            .await?;
    ephemeral_stack::store_rows(&stack.url(ServiceKind::IngestApi)).await?;

    println!("== {} wrong keys", options.wrong_keys);
    let gateway = process(&stack, ServiceKind::SseGateway)?;
    let url = format!("{}/statistics/transfers/day", stack.url(ServiceKind::SseGateway));
    let (mut requests, mut seconds, mut first) = (0, 0.0, None);
    let lines_before = lines.load(Ordering::Relaxed);
    while requests < options.wrong_keys {
        let refused = load::flood(&fast, &url, CONNECTIONS, options.seconds).await?;
        requests += refused;
        seconds += f64::from(options.seconds);
        if requests >= options.wrong_keys / 10 {
            first = first.or(Some(resident_bytes(gateway)?));
        }
    }
    let first = first.context("there was no request")?;
    let report = FloodReport {
        requests,
        seconds,
        grown_bytes: resident_bytes(gateway)? - first,
        log_lines: lines.load(Ordering::Relaxed) - lines_before,
    };

    let ingest = stack.url(ServiceKind::IngestApi);
    let [items, none] = ["items", "none"].map(|path| format!("{ingest}/{path}"));
    for round in 0..options.rounds {
        println!("== floods, round {} of {}", round + 1, options.rounds);
        let mut floods = [(UNDER_WRONG_KEYS, &wrong, &items), (UNDER_404, &missing, &none)];
        if round % 2 == 1 {
            floods.reverse();
        }
        for (name, script, url) in floods {
            let (producer, refused) = tokio::try_join!(
                load::wrk(&posts, &ingest, PRODUCER_CONNECTIONS, options.seconds),
                load::flood(script, url, CONNECTIONS, options.seconds),
            )?;
            ensure!(refused > 0, "there was no flood");
            rounds.add(name, RATE, producer.rate);
            #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
            rounds.add(name, FLOOD_RATE, refused as f64 / f64::from(options.seconds));
        }
    }
    ephemeral_stack::stop(stack).await?;
    Ok(report)
}

/// Writes a list of wrong keys.
fn write_wrong_keys(folder: &Path) -> anyhow::Result<PathBuf> {
    let list = folder.join("wrong-keys");
    let mut keys = String::new();
    for _ in 0..DIFFERENT_KEYS {
        writeln!(keys, "{}", Key::generate().expose())?;
    }
    write_private(&list, &keys)?;
    Ok(list)
}

impl AccessReport {
    fn print(&self) {
        figures::print(&format!("medians of {} rounds", self.rounds), &self.figures);
        figures::print("ratios of the same round", &self.ratios);
        if let Some([keys, open]) = self.instructions {
            println!("{keys:>12.0} instructions of the gateway by delivery, {KEYS}");
            println!("{open:>12.0} instructions of the gateway by delivery, {OPEN}");
            println!("{:>12.3} {KEYS} ÷ {OPEN}", keys / open);
        }
        let FloodReport { requests, seconds, grown_bytes, log_lines } = &self.flood;
        println!("== {requests} requests with wrong keys in {seconds:.0} s");
        println!("{:>12.0} KiB more memory of the gateway", grown_bytes / 1024.0);
        println!("{log_lines:>12} lines in its log");
    }
}
