//! `cargo xtask bench fanout`: what one delivery to one of many clients costs sse-gateway.
//!
//! Raw sockets read one stream whose counts change all the time. Then, in the same run, one thread
//! sends as many bytes to as many sockets and does nothing else: what the kernel costs anyway.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use local_stack::stack::{ServiceKind, Stack, Variable};
use local_stack::test_database::TEST_KEY;
use serde::Serialize;
use service_kit::limits::raise_open_files;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::usage::{process_cpu, resident_bytes, thread_cpu};
use super::{Bench, ephemeral_stack};

/// How much to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct FanoutOptions {
    /// Clients of the stream. Each needs a file descriptor in the gateway. The bare sends need two
    /// for each client, both here.
    #[arg(long, default_value_t = 2_000)]
    readers: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// A second with 50 readers and the build that `up` uses, which shows only that it works.
    #[arg(long, conflicts_with_all = ["readers", "seconds"])]
    pub(super) short: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

impl FanoutOptions {
    /// What continuous integration runs.
    pub(super) const fn short() -> Self {
        Self { readers: 50, seconds: 1, short: true, json: false }
    }
}

/// The stream that all clients read.
const STREAM: &str = "/statistics/item-creation/second";

/// How often an item is posted, about.
const POST_PAUSE: Duration = Duration::from_millis(20);

/// How long the clients may take to receive their first frame.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(60);

/// The least number of bare sends. The kernel counts the time of a running thread at its ticks, so
/// fewer sends would measure nothing.
const LEAST_SENDS: u64 = 200_000;

/// Open files for everything but the clients' sockets.
const SPARE_FILES: u64 = 100;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct FanoutReport {
    readers: u32,
    seconds: f64,
    /// Frames that all readers received.
    deliveries: u64,
    deliveries_per_second: f64,
    /// The mean size of a frame, with HTTP's framing.
    bytes_per_delivery: u64,
    /// CPU time of the gateway, in µs.
    gateway_cpu_us_per_delivery: f64,
    /// CPU time of a thread that does nothing but send, in µs.
    bare_cpu_us_per_send: f64,
    /// The ratio of both.
    gateway_to_bare: f64,
    /// Memory of the gateway, in bytes.
    memory_bytes_per_stream: f64,
}

/// What all readers have received.
#[derive(Debug, Default)]
struct Received {
    frames: AtomicU64,
    bytes: AtomicU64,
    /// Readers that have received a frame.
    started: AtomicU64,
}

pub(super) async fn run(
    bench: &Bench<'_>,
    options: &FanoutOptions,
) -> anyhow::Result<FanoutReport> {
    let short = FanoutOptions::short();
    let options = if options.short { &short } else { options };
    ensure!(options.readers > 0 && options.seconds > 0, "nothing to measure");
    let needed = 2 * u64::from(options.readers) + SPARE_FILES;
    if let Some(limit) = raise_open_files() {
        ensure!(limit >= needed, "this needs {needed} open files, but `ulimit -Hn` is {limit}");
    }
    let mut fanout = Fanout::start(bench, "newcycle_bench_fanout", &[], options.readers).await?;
    let (gateway, received) = (fanout.gateway, Arc::clone(&fanout.received));
    let counts =
        || [&received.frames, &received.bytes].map(|counter| counter.load(Ordering::Relaxed));
    let cpu_before = process_cpu(gateway)?;
    let [frames_before, bytes_before] = counts();
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(options.seconds.into())).await;
    let seconds = started.elapsed().as_secs_f64();
    let [frames, bytes] = counts();
    let cpu = process_cpu(gateway)? - cpu_before;
    let memory = resident_bytes(gateway)? - fanout.memory_before;
    fanout.check()?;
    let deliveries = frames - frames_before;
    ensure!(deliveries > 0, "the gateway delivered nothing");
    let bytes_per_delivery = (bytes - bytes_before) / deliveries;
    fanout.stop().await?;
    let bare = bare_send(options.readers, deliveries, bytes_per_delivery).await?;
    #[expect(clippy::cast_precision_loss, reason = "a number of frames")]
    let number = deliveries as f64;
    let report = FanoutReport {
        readers: options.readers,
        seconds,
        deliveries,
        deliveries_per_second: number / seconds,
        bytes_per_delivery,
        gateway_cpu_us_per_delivery: cpu * 1e6 / number,
        bare_cpu_us_per_send: bare * 1e6,
        gateway_to_bare: cpu / number / bare,
        memory_bytes_per_stream: memory / f64::from(options.readers),
    };
    report.print();
    Ok(report)
}

/// A gateway with readers of a stream whose counts change.
pub(super) struct Fanout {
    stack: Stack,
    /// The process of the gateway.
    pub(super) gateway: u32,
    /// The gateway's memory before its first reader, in bytes.
    pub(super) memory_before: f64,
    readers: JoinSet<anyhow::Result<()>>,
    posting: AbortOnDropHandle<anyhow::Result<()>>,
    received: Arc<Received>,
}

impl Fanout {
    /// Returns when all readers have received a frame.
    pub(super) async fn start(
        bench: &Bench<'_>,
        database: &str,
        variables: &[Variable<'_>],
        readers: u32,
    ) -> anyhow::Result<Self> {
        // All readers have the same address.
        let connections = (u64::from(readers) + SPARE_FILES).to_string();
        let variable = "NEWCYCLE__HTTP__MAX_CONNECTIONS_PER_ADDRESS";
        let mut variables = variables.to_vec();
        variables.push((ServiceKind::SseGateway, variable, &connections));
        let stack = bench.start(database, &variables).await?;
        let gateway = stack
            .process_ids()
            .find_map(|(instance, id)| (instance.service == ServiceKind::SseGateway).then_some(id))
            .context("the gateway does not run")?;
        let posting = super::post(stack.url(ServiceKind::IngestApi), POST_PAUSE);
        let address = stack.url(ServiceKind::SseGateway);
        let address = address.strip_prefix("http://").context("the gateway's URL is not HTTP")?;
        let mut fanout = Self {
            gateway,
            memory_before: resident_bytes(gateway)?,
            readers: JoinSet::new(),
            posting: AbortOnDropHandle::new(tokio::spawn(posting)),
            received: Arc::default(),
            stack,
        };
        for _ in 0..readers {
            let stream = TcpStream::connect(address).await.context("connecting to the gateway")?;
            fanout.readers.spawn(read(stream, Arc::clone(&fanout.received)));
        }
        let started = Instant::now();
        while fanout.received.started.load(Ordering::Relaxed) < readers.into() {
            fanout.check()?;
            ensure!(started.elapsed() < FIRST_FRAME_TIMEOUT, "not all readers received a frame");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(fanout)
    }

    /// The frames that all readers have received.
    pub(super) fn deliveries(&self) -> u64 {
        self.received.frames.load(Ordering::Relaxed)
    }

    /// Fails if a reader or the producer has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        ensure!(!self.posting.is_finished(), "posting an item failed");
        match self.readers.try_join_next() {
            Some(ended) => ended?.context("a reader failed"),
            None => Ok(()),
        }
    }

    /// Ends the readers, and stops the services.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        drop((self.posting, self.readers));
        ephemeral_stack::stop(self.stack).await
    }
}

/// Reads the stream, and counts its frames by the empty lines that end them.
async fn read(mut stream: TcpStream, received: Arc<Received>) -> anyhow::Result<()> {
    let request = format!(
        "GET {STREAM} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEST_KEY}\r\naccept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 16 * 1024];
    let mut last = 0;
    let mut has_started = false;
    loop {
        let length = stream.read(&mut buffer).await?;
        ensure!(length > 0, "the gateway ended a stream");
        if last == 0 {
            let answer = String::from_utf8_lossy(&buffer[..length]);
            ensure!(answer.starts_with("HTTP/1.1 200"), "the gateway answered: {answer}");
        }
        let mut frames = 0;
        for byte in &buffer[..length] {
            frames += u64::from(*byte == b'\n' && last == b'\n');
            last = *byte;
        }
        received.frames.fetch_add(frames, Ordering::Relaxed);
        received.bytes.fetch_add(length as u64, Ordering::Relaxed);
        if frames > 0 && !has_started {
            has_started = true;
            received.started.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// CPU seconds of one send of this size, from one thread to each socket in turn.
async fn bare_send(sockets: u32, sends: u64, bytes: u64) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut senders = Vec::new();
    let mut readers = JoinSet::new();
    for _ in 0..sockets {
        let reader = TcpStream::connect(address).await?;
        readers.spawn(discard(reader));
        let (sender, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        senders.push(sender);
    }
    let rounds = sends.max(LEAST_SENDS).div_ceil(u64::from(sockets));
    let bytes = vec![b'x'; usize::try_from(bytes)?];
    tokio::task::spawn_blocking(move || send(&senders, rounds, &bytes)).await?
}

#[expect(clippy::cast_precision_loss, reason = "a number of frames")]
fn send(senders: &[StdStream], rounds: u64, bytes: &[u8]) -> anyhow::Result<f64> {
    let before = thread_cpu()?;
    for _ in 0..rounds {
        for mut sender in senders {
            sender.write_all(bytes)?;
        }
    }
    Ok((thread_cpu()? - before) / (rounds as f64 * senders.len() as f64))
}

async fn discard(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

impl FanoutReport {
    fn print(&self) {
        println!("== {} readers of {STREAM} for {:.1} s", self.readers, self.seconds);
        println!("{:>12} deliveries", self.deliveries);
        println!("{:>12.0} deliveries/s", self.deliveries_per_second);
        println!("{:>12} bytes in a delivery", self.bytes_per_delivery);
        println!("{:>12.2} µs of CPU of the gateway by delivery", self.gateway_cpu_us_per_delivery);
        println!("{:>12.2} µs of CPU of a bare send", self.bare_cpu_us_per_send);
        println!("{:>12.2} gateway ÷ bare send", self.gateway_to_bare);
        println!("{:>12.1} KiB of memory by stream", self.memory_bytes_per_stream / 1024.0);
    }
}
