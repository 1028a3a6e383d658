//! `cargo xtask bench backfill`: one statement on very many events of past times, and what
//! everybody else notices of it.
//!
//! One producer posts single items all the time, and one client follows their count. Printed for
//! each statement: how long it ran; how long after its commit it was shown; the longest time for
//! which the count stood still, and how often it became stale; how long after the commit the log
//! was folded, also in units of the statement's own time. No unit expires its buckets, so each
//! event has the most rollups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Replicas, ServiceKind, built_programs};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;

use crate::ephemeral_stack;

/// How much to write.
#[derive(Debug, clap::Args)]
pub(crate) struct BackfillOptions {
    /// Events of each statement, at random times of ten years.
    #[arg(long, default_value_t = 1_000_000)]
    events: u32,
}

/// How often the producer posts an item.
const POST_INTERVAL: Duration = Duration::from_millis(50);

/// How often the log is asked whether it is folded. Counting its rows costs about what a tick does.
const FOLD_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// What a client of `item-creation/year` has seen.
#[derive(Debug, Default)]
struct Seen {
    items: i64,
    last_change: Option<Instant>,
    longest_standstill: Duration,
    stale: usize,
}

#[derive(Deserialize)]
struct Years {
    buckets: Vec<Year>,
}

#[derive(Deserialize)]
struct Year {
    time: String,
    count: i64,
}

pub(super) async fn run(
    cluster: &ClusterSettings,
    options: &BackfillOptions,
) -> anyhow::Result<()> {
    let name = "newcycle_bench_backfill";
    let variables = [
        (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__SECOND_DAYS", "0"),
        (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__MINUTE_DAYS", "0"),
    ];
    let programs = built_programs()?;
    let stack =
        ephemeral_stack::start_with(cluster, name, Replicas::ONE, &programs, &variables).await?;
    let ingest_api = stack.url(ServiceKind::IngestApi);
    ephemeral_stack::store_rows(&ingest_api).await?;
    let client = connect(cluster, name).await?;
    let seen = Arc::<Mutex<Seen>>::default();
    let url = format!("{}/statistics/item-creation/year", stack.url(ServiceKind::SseGateway));
    let following = AbortOnDropHandle::new(tokio::spawn(follow(url, Arc::clone(&seen))));
    let posting = AbortOnDropHandle::new(tokio::spawn(post(ingest_api)));
    let events = options.events;
    let insert = format!(
        "INSERT INTO items SELECT gen_random_uuid(), '{}', now() - random() * interval '10 years' \
         FROM generate_series(1, {events})",
        ephemeral_stack::BASE_ITEM
    );
    let delete = "DELETE FROM items WHERE created_at < now() - interval '1 hour'";
    println!(
        "{:>9} {:>10} {:>8} {:>8} {:>14} {:>6} {:>8} {:>11}",
        "statement",
        "events",
        "ran, s",
        "shown, s",
        "standstill, s",
        "stale",
        "fold, s",
        "fold ÷ ran"
    );
    for (kind, statement, change) in [("INSERT", insert.as_str(), 1), ("DELETE", delete, -1)] {
        let before = {
            let mut seen = seen.lock();
            (seen.longest_standstill, seen.stale) = (Duration::ZERO, 0);
            seen.items
        };
        let started = Instant::now();
        client.batch_execute(statement).await.context("running the statement")?;
        let ran = started.elapsed();
        let committed = Instant::now();
        // Half of the events, because the posted ones count as well.
        let half = change * i64::from(events) / 2;
        while (seen.lock().items - before - half) * change < 0 {
            anyhow::ensure!(!following.is_finished(), "the stream has ended");
            anyhow::ensure!(!posting.is_finished(), "posting an item failed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let shown = committed.elapsed();
        while unfolded(&client).await? > i64::from(events) / 2 {
            tokio::time::sleep(FOLD_POLL_INTERVAL).await;
        }
        let folded = committed.elapsed();
        let seen = seen.lock();
        println!(
            "{kind:>9} {events:>10} {:>8.1} {:>8.1} {:>14.1} {:>6} {:>8.1} {:>11.2}",
            ran.as_secs_f64(),
            shown.as_secs_f64(),
            seen.longest_standstill.as_secs_f64(),
            seen.stale,
            folded.as_secs_f64(),
            folded.as_secs_f64() / ran.as_secs_f64(),
        );
    }
    drop((following, posting));
    ephemeral_stack::stop(stack).await
}

async fn connect(cluster: &ClusterSettings, database: &str) -> anyhow::Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(cluster.port).dbname(database);
    config.user(&cluster.user).password(&cluster.password);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn unfolded(client: &Client) -> anyhow::Result<i64> {
    let count = "SELECT count(*) FROM unfolded_count_log";
    Ok(client.query_one(count, &[]).await?.get(0))
}

/// Posts items, one after another.
async fn post(ingest_api: String) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let body = format!("{{\"base_item_id\":\"{}\"}}", ephemeral_stack::BASE_ITEM);
    loop {
        let request = client.post(format!("{ingest_api}/items")).body(body.clone());
        let request = request.header("content-type", "application/json");
        request.send().await?.error_for_status()?;
        tokio::time::sleep(POST_INTERVAL).await;
    }
}

/// Follows the number of items by year.
async fn follow(url: String, seen: Arc<Mutex<Seen>>) -> anyhow::Result<()> {
    let request = reqwest::Client::new().get(url).header("accept", "text/event-stream");
    let mut response = request.send().await?.error_for_status()?;
    let mut years = std::collections::BTreeMap::new();
    let mut buffer = String::new();
    while let Some(chunk) = response.chunk().await? {
        buffer.push_str(std::str::from_utf8(&chunk)?);
        while let Some(end) = buffer.find("\n\n") {
            let event: String = buffer.drain(..end + 2).collect();
            let field = |name: &str| {
                let lines = event.lines().filter_map(move |line| line.strip_prefix(name));
                lines.collect::<String>()
            };
            let mut seen = seen.lock();
            if field("event:").trim() == "status" {
                seen.stale += usize::from(field("data:").contains("stale"));
                continue;
            }
            let changed: Years = serde_json::from_str(&field("data:"))?;
            years.extend(changed.buckets.into_iter().map(|year| (year.time, year.count)));
            seen.items = years.values().sum();
            let now = Instant::now();
            if let Some(last) = seen.last_change.replace(now) {
                seen.longest_standstill = seen.longest_standstill.max(now.duration_since(last));
            }
        }
    }
    anyhow::bail!("the stream has ended")
}
