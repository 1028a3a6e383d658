//! Transactions that are held open for long, while all others go on.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use uuid::Uuid;

use crate::soak::{Outcome, number, start};
use crate::system::{PATIENCE, System};
use crate::wait::until;
use crate::writers;

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

/// Holds a writing transaction open, then a reading one, each for two fifths of `time`. Fails where numbers stop to move,
/// where the writer's row is counted too soon or not at all, or where the log is not purged afterwards.
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
    let mut grown = Vec::new();
    let (mut rows, step) = (Vec::new(), time / 5);
    stretch(&mut system, Duration::from_secs(5)).await?;
    rows.push(("none", stretch(&mut system, step).await?));

    say("a writing transaction is open");
    let writer = system.database.another().await?;
    let (id, year) = (Uuid::now_v7(), "1990-01-01T00:00:00Z");
    let insert = format!("BEGIN; INSERT INTO items VALUES ('{id}', '{}', '{year}')", world.parents.base_item);
    writer.batch_execute(&insert).await?;
    for when in ["a writing one, first half", "a writing one, second half"] {
        rows.push((when, stretch(&mut system, step).await?));
    }
    let counted =
        "SELECT coalesce(sum(count), 0)::int8 FROM rollup WHERE unit = 'year' AND bucket < '2000-01-01Z'";
    if number(&mut system, counted).await? != 0 {
        grown.push("the row of an open transaction was counted".to_owned());
    }
    writer.batch_execute("COMMIT").await?;
    let after = until(PATIENCE, async || Ok((number(&mut system, counted).await? == 1).then_some(())));
    if after.await?.is_none() {
        grown.push("the row of a transaction that was open for long was not counted".to_owned());
    }
    until_purged(&mut system, &mut grown).await?;

    say("a reading transaction is open");
    let reader = system.database.another().await?;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM rollup").await?;
    for when in ["a reading one, first half", "a reading one, second half"] {
        rows.push((when, stretch(&mut system, step).await?));
    }
    reader.batch_execute("COMMIT").await?;
    until_purged(&mut system, &mut grown).await?;
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
            grown.push(format!("numbers hardly moved: {versions:.1} versions a second ({what})"));
        }
    }
    let writes = world.history.totals().acknowledged;
    // Writing to a string does not fail.
    let _written =
        write!(report, "\neach of {} s, {writes} writes acknowledged in all, seed {seed}", step.as_secs());
    drop(writers);
    system.stop(false).await?;
    Ok(Outcome { report, grown })
}

/// The log is as short as it was, soon after nothing holds it back any more, though all others go on.
async fn until_purged(system: &mut System, grown: &mut Vec<String>) -> anyhow::Result<()> {
    let started = Instant::now();
    let purged = until(PATIENCE, async || {
        Ok((number(system, "SELECT count(*) FROM count_log").await? < 5_000).then_some(()))
    });
    if purged.await?.is_none() {
        grown.push(format!("the change log was not purged within {} s", started.elapsed().as_secs()));
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
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.contains("le=\"")) {
        let (name, value) = line.rsplit_once(' ').context("a metric without a value")?;
        let name = name.split('{').next().unwrap_or(name);
        *metrics.entry(name.to_owned()).or_default() += value.parse::<f64>()?;
    }
    Ok(metrics)
}
