//! `cargo xtask bench backfill`: one statement on very many events of past times, and what
//! everybody else notices of it.
//!
//! One producer posts single items all the time, and one client follows their count. Printed for
//! each statement: how long it ran; how long after its commit it was shown; the longest time for
//! which the count stood still, and how often it became stale; how long after the commit the log
//! was folded, also in units of the statement's own time, and purged. No unit expires its buckets,
//! so each event has the most rollups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use local_stack::stack::{ServiceKind, Stack};
use local_stack::test_database::http_client;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use super::Bench;
use super::usage::{DatabaseWork, EventCost};
use super::wait::{check_wait, until};
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

/// A statement on very many events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement {
    Insert,
    Delete,
}

/// What one statement meant for everybody else.
#[derive(Debug, Serialize)]
pub(super) struct Backfill {
    /// Events of the statement.
    pub(super) events: u32,
    /// How long the statement ran, in seconds.
    ran_s: f64,
    /// From its commit until the client saw it, in seconds.
    shown_s: f64,
    /// The longest time without a change of the client's count, in seconds.
    standstill_s: f64,
    /// How often the counts became stale.
    stale: usize,
    /// From the commit until the log was folded, in seconds.
    fold_s: f64,
    /// From the commit until the log was purged, in seconds.
    purge_s: f64,
    /// What an event cost the database from the statement until it was purged. The producer's few
    /// items are included, but not counted.
    pub(super) cost: EventCost,
}

/// A stack, a producer that posts items all the time, and a client that follows their count.
pub(super) struct LiveStack {
    stack: Stack,
    client: Client,
    seen: Arc<Mutex<Seen>>,
    following: AbortOnDropHandle<anyhow::Result<()>>,
    posting: AbortOnDropHandle<anyhow::Result<()>>,
}

impl LiveStack {
    pub(super) async fn start(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let name = "newcycle_bench_backfill";
        let variables = [
            (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__SECOND_DAYS", "0"),
            (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__MINUTE_DAYS", "0"),
        ];
        let stack = bench.start(name, &variables).await?;
        let client = bench.connect(name).await?;
        let seen = Arc::<Mutex<Seen>>::default();
        let url = format!("{}/statistics/item-creation/year", stack.url(ServiceKind::SseGateway));
        let following = AbortOnDropHandle::new(tokio::spawn(follow(url, Arc::clone(&seen))));
        let posting = super::post(stack.url(ServiceKind::IngestApi), POST_INTERVAL);
        let posting = AbortOnDropHandle::new(tokio::spawn(posting));
        Ok(Self { stack, client, seen, following, posting })
    }

    /// Runs a statement, and waits until its log is purged. Then sessions have `report_time` to
    /// report dead tuples.
    pub(super) async fn measure(
        &self,
        bench: &Bench<'_>,
        statement: Statement,
        events: u32,
        report_time: Duration,
    ) -> anyhow::Result<Backfill> {
        let client = &self.client;
        let (sql, change) = match statement {
            Statement::Insert => (
                format!(
                    "INSERT INTO items \
                     SELECT gen_random_uuid(), '{}', now() - random() * interval '10 years' \
                     FROM generate_series(1, {events})",
                    ephemeral_stack::BASE_ITEM
                ),
                1,
            ),
            Statement::Delete => {
                ("DELETE FROM items WHERE created_at < now() - interval '1 hour'".to_owned(), -1)
            }
        };
        let before = {
            let mut seen = self.seen.lock();
            (seen.longest_standstill, seen.stale) = (Duration::ZERO, 0);
            seen.items
        };
        let work = DatabaseWork::read(bench.cluster, client).await?;
        let started = Instant::now();
        client.batch_execute("BEGIN").await?;
        let own = "SELECT pg_current_xact_id()::text";
        let transaction: String = client.query_one(own, &[]).await?.get(0);
        client.batch_execute(&sql).await.context("running the statement")?;
        client.batch_execute("COMMIT").await?;
        let ran = started.elapsed();
        let committed = Instant::now();
        // Half of the events, because the posted ones count as well.
        let half = change * i64::from(events) / 2;
        while (self.seen.lock().items - before - half) * change < 0 {
            anyhow::ensure!(!self.following.is_finished(), "the stream has ended");
            anyhow::ensure!(!self.posting.is_finished(), "posting an item failed");
            check_wait(committed, "the client was shown the events")?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let shown = committed.elapsed();
        let question =
            format!("SELECT pg_visible_in_snapshot('{transaction}', snapshot) FROM rollup_cursor");
        until(client, &question, "the events were folded").await?;
        let folded = committed.elapsed();
        let (longest_standstill, stale) = {
            let seen = self.seen.lock();
            (seen.longest_standstill, seen.stale)
        };
        let question = format!(
            "SELECT count(*) = 0
            FROM (
                SELECT FROM count_log
                WHERE xact_id <= '{transaction}'
                ORDER BY xact_id DESC
                LIMIT 1
            ) AS newest"
        );
        until(client, &question, "the log of the events was purged").await?;
        let purged = committed.elapsed();
        let mut done = DatabaseWork::read(bench.cluster, client).await?;
        tokio::time::sleep(report_time).await;
        done.read_late_reports(bench.cluster, client).await?;
        let cost = done.cost_since(&work, f64::from(events), 0.0);
        Ok(Backfill {
            events,
            ran_s: ran.as_secs_f64(),
            shown_s: shown.as_secs_f64(),
            standstill_s: longest_standstill.as_secs_f64(),
            stale,
            fold_s: folded.as_secs_f64(),
            purge_s: purged.as_secs_f64(),
            cost,
        })
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        drop((self.following, self.posting));
        ephemeral_stack::stop(self.stack).await
    }
}

pub(super) fn print_header() {
    println!(
        "{:>9} {:>10} {:>8} {:>8} {:>14} {:>6} {:>8} {:>11} {:>8}",
        "statement",
        "events",
        "ran, s",
        "shown, s",
        "standstill, s",
        "stale",
        "fold, s",
        "fold ÷ ran",
        "purge, s"
    );
}

impl Backfill {
    pub(super) fn print(&self, statement: Statement) {
        let name = match statement {
            Statement::Insert => "INSERT",
            Statement::Delete => "DELETE",
        };
        println!(
            "{name:>9} {:>10} {:>8.1} {:>8.1} {:>14.1} {:>6} {:>8.1} {:>11.2} {:>8.1}",
            self.events,
            self.ran_s,
            self.shown_s,
            self.standstill_s,
            self.stale,
            self.fold_s,
            self.fold_s / self.ran_s,
            self.purge_s,
        );
    }
}

pub(super) async fn run(bench: &Bench<'_>, options: &BackfillOptions) -> anyhow::Result<()> {
    let live = LiveStack::start(bench).await?;
    print_header();
    for statement in [Statement::Insert, Statement::Delete] {
        live.measure(bench, statement, options.events, Duration::ZERO).await?.print(statement);
    }
    live.stop().await
}

/// Follows the number of items by year.
async fn follow(url: String, seen: Arc<Mutex<Seen>>) -> anyhow::Result<()> {
    let request = http_client().no_proxy().build()?.get(url).header("accept", "text/event-stream");
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
