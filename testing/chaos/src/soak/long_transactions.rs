//! Transactions that are held open for long, while all others go on.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;
use local_stack::stack::Part;
use tokio::time::Instant;
use uuid::Uuid;

use crate::soak::{Outcome, finish, number, start};
use crate::system::{PATIENCE, System};
use crate::wait::until;
use crate::writers;

/// Rows that each long writing transaction inserts, and so logs, one by one.
const OWN_ROWS: i64 = 20_000;

/// With fewer log rows the purge keeps up with producers who go on.
const PURGED: i64 = 1_000;

/// By so much a tick may get slower while a transaction stays open: this factor, and beside it some milliseconds.
const SLOWER: (f64, f64) = (2.0, 1.0);

/// What the leader did in a stretch of time.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    /// Versions published, by the second.
    versions: f64,
    /// The mean time of a tick, in milliseconds.
    tick: f64,
    /// The mean time of a flush, in milliseconds.
    flush: f64,
    /// Rows of the change log at its end.
    log_rows: i64,
    /// Dead rows of the rollups at its end.
    dead_rollups: i64,
}

/// Holds two writing transactions open, of which one is rolled back, then a reading one, for two fifths of `time` each. Wrong
/// is where numbers stop to move or ticks get slower, where rows are shown too soon, or others than the committed ones, and
/// where the log is not purged afterwards.
///
/// # Errors
/// Something fails that is not about these transactions.
pub async fn long_transactions(
    seed: u64,
    time: Duration,
    mut say: impl FnMut(&str),
) -> anyhow::Result<Outcome> {
    say("starting Postgres, two of each service, and the links between them");
    let (mut system, world) = start(&[]).await?;
    let writers = writers::start(&world, seed);
    let mut wrong = Vec::new();
    let (mut rows, step) = (Vec::new(), time / 5);
    stretch(&mut system, Duration::from_secs(5)).await?;
    rows.push(("none", stretch(&mut system, step).await?));

    say("two writing transactions are open");
    let (writer, regretful) = (system.database.another().await?, system.database.another().await?);
    for client in [&writer, &regretful] {
        client.batch_execute(&own_rows(world.parents.base_item)).await?;
    }
    for when in ["two writing ones, first half", "two writing ones, second half"] {
        rows.push((when, stretch(&mut system, step).await?));
    }
    if shown(&system).await? != 0 {
        wrong.push("rows of open transactions are shown".to_owned());
    }
    // What others have committed since, for the rows of open transactions are not seen.
    if number(&mut system, "SELECT count(*) FROM count_log").await? < 5 * PURGED {
        wrong.push("the open transactions did not hold the purge back: nothing can be said of it".to_owned());
    }
    regretful.batch_execute("ROLLBACK").await?;
    writer.batch_execute("COMMIT").await?;
    let after = until(PATIENCE, async || Ok((shown(&system).await? == OWN_ROWS).then_some(())));
    if after.await?.is_none() {
        let shown = shown(&system).await?;
        wrong.push(format!("of a transaction of {OWN_ROWS} rows, {shown} are shown after its commit"));
    }
    until_purged(&mut system, &mut wrong).await?;

    say("a reading transaction is open");
    let reader = system.database.another().await?;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM rollup").await?;
    for when in ["a reading one, first half", "a reading one, second half"] {
        rows.push((when, stretch(&mut system, step).await?));
    }
    reader.batch_execute("COMMIT").await?;
    until_purged(&mut system, &mut wrong).await?;
    rows.push(("none, after", stretch(&mut system, step / 2).await?));

    let mut report =
        "| open for long | versions a second | tick, ms | flush, ms | log rows | dead rollups |\n\
         |---|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for (what, Stretch { versions, tick, flush, log_rows, dead_rollups }) in &rows {
        // Writing to a string does not fail.
        let _written = writeln!(
            report,
            "| {what} | {versions:.1} | {tick:.2} | {flush:.1} | {log_rows} | {dead_rollups} |"
        );
        if *versions < 1.0 {
            wrong.push(format!("numbers hardly moved: {versions:.1} versions a second ({what})"));
        }
    }
    // Slower than without, or slower and slower.
    for (earlier, later) in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (3, 4)] {
        let (first, last) = (rows[earlier].1.tick, rows[later].1.tick);
        if last > first * SLOWER.0 + SLOWER.1 {
            wrong.push(format!("ticks got slower: {first:.2} ms, then {last:.2} ms ({})", rows[later].0));
        }
    }
    wrong.extend(system.unwell());
    wrong.extend(world.history.complaints());
    let writes = world.history.totals().acknowledged;
    // Writing to a string does not fail.
    let _written =
        write!(report, "\neach of {} s, {writes} writes acknowledged in all, seed {seed}", step.as_secs());
    drop(writers);
    finish(system).await?;
    Ok(Outcome { report, grown: wrong })
}

/// A transaction that stays open, with rows in a year of their own.
fn own_rows(base_item: Uuid) -> String {
    format!(
        "BEGIN; DO $$ BEGIN FOR n IN 1..{OWN_ROWS} LOOP INSERT INTO public.items VALUES (gen_random_uuid(), '{base_item}', \
         '1990-06-01Z'::timestamptz + n * interval '1 ms'); END LOOP; END $$"
    )
}

/// How many of these rows a client is shown.
async fn shown(system: &System) -> anyhow::Result<i64> {
    let gateway = system.stack.url(Part::SseGateway.replica(1));
    let request = reqwest::Client::new().get(format!("{gateway}/statistics/item-creation/year"));
    let text = request.header("accept", "application/json").send().await?.error_for_status()?.text().await?;
    let window: serde_json::Value = serde_json::from_str(&text)?;
    let buckets = window["buckets"].as_array().context("an answer without buckets")?;
    let own =
        buckets.iter().find(|bucket| bucket["time"].as_str().is_some_and(|time| time.starts_with("1990")));
    Ok(own.and_then(|bucket| bucket["count"].as_i64()).unwrap_or(0))
}

/// The log is as short as it was, soon after nothing holds it back any more, though all others go on.
async fn until_purged(system: &mut System, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let started = Instant::now();
    let purged = until(PATIENCE, async || {
        Ok((number(system, "SELECT count(*) FROM count_log").await? < PURGED).then_some(()))
    });
    if purged.await?.is_none() {
        wrong.push(format!("the change log was not purged within {} s", started.elapsed().as_secs()));
    }
    Ok(())
}

async fn stretch(system: &mut System, time: Duration) -> anyhow::Result<Stretch> {
    let (before, published) = (metrics(system).await?, system.published().len());
    tokio::time::sleep(time).await;
    let after = metrics(system).await?;
    let published = system.published().len() - published;
    let mean = |name: &str| {
        let grown = |suffix: &str| {
            let of = |metrics: &HashMap<String, f64>| {
                metrics.get(&format!("{name}_{suffix}")).copied().unwrap_or_default()
            };
            of(&after) - of(&before)
        };
        1_000.0 * grown("sum") / grown("count").max(1.0)
    };
    let dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'rollup'";
    Ok(Stretch {
        versions: published as f64 / time.as_secs_f64(),
        tick: mean("notifier_tick_duration_seconds"),
        flush: mean("notifier_flush_duration_seconds"),
        log_rows: number(system, "SELECT count(*) FROM count_log").await?,
        dead_rollups: number(system, dead).await?,
    })
}

/// The leader's numbers, those with labels added up.
async fn metrics(system: &System) -> anyhow::Result<HashMap<String, f64>> {
    let url = format!("{}/metrics", system.stack.internal_url(system.leader().await?));
    let text = reqwest::get(url).await?.text().await?;
    let mut metrics: HashMap<String, f64> = HashMap::new();
    for line in
        text.lines().filter(|line| !line.starts_with('#') && line.contains(' ') && !line.contains("le=\""))
    {
        let (name, value) = line.rsplit_once(' ').context("a metric without a value")?;
        let name = name.split('{').next().unwrap_or(name);
        *metrics.entry(name.to_owned()).or_default() += value.parse::<f64>()?;
    }
    Ok(metrics)
}
