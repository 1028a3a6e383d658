//! Transactions that stay open for a long time while everything else goes on.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;
use local_stack::internal;
use local_stack::postgres::Installation;
use local_stack::stack::ServiceKind;
use local_stack::test_database::client;
use uuid::Uuid;

use super::{SoakOutcome, finish};
use crate::system::{Programs, SERVICE_TIMEOUT, System};
use crate::wait::until;
use crate::writers::{self, Writes};

/// The rows that each long writing transaction inserts one by one, each with a change log row.
const OWN_ROWS: i64 = 20_000;

/// The purge keeps up with the producers as long as the change log has fewer rows.
const PURGED_LOG_ROWS: i64 = 1_000;

/// How much slower a tick may get while a transaction stays open: by this factor, plus this number
/// of milliseconds.
const SLOWER_FACTOR: f64 = 2.0;
const SLOWER_MILLISECONDS: f64 = 1.0;

/// What the leader did during some time.
#[derive(Debug, Clone, Copy, Default)]
struct Measurement {
    /// Versions published per second.
    versions: f64,
    /// The mean duration of a tick, in milliseconds.
    tick: f64,
    /// The mean duration of a flush, in milliseconds.
    flush: f64,
    /// Rows of the change log at the end.
    log_rows: i64,
    /// Dead rows of the rollup table at the end.
    dead_rollups: i64,
}

/// Holds two writing transactions open and rolls one of them back, then holds a reading transaction
/// open, each for two fifths of `duration`. It is a problem if versions stop or ticks get slower,
/// if uncommitted rows are shown or committed ones are not, or if the log is not purged afterwards.
///
/// # Errors
/// Something fails that is not about these transactions.
pub async fn long_transactions(
    seed: u64,
    duration: Duration,
    mut log: impl FnMut(&str),
) -> anyhow::Result<SoakOutcome> {
    log("starting Postgres, two of each service, and the links between them");
    let mut system = System::start(Installation::find()?, Programs::Built, &[]).await?;
    let world = system.world().await?;
    let writers = writers::start(&world, seed, Writes::All);
    let mut problems = Vec::new();
    let mut rows = Vec::new();
    let step = duration / 5;
    measure(&mut system, Duration::from_secs(5)).await?;
    rows.push(("none", measure(&mut system, step).await?));

    log("two writing transactions are open");
    let writer = system.database.open_session().await?;
    let rolled_back = system.database.open_session().await?;
    for client in [&writer, &rolled_back] {
        client.batch_execute(&own_rows(world.parents.base_item)).await?;
    }
    for when in ["two writing ones, first half", "two writing ones, second half"] {
        rows.push((when, measure(&mut system, step).await?));
    }
    if shown(&system).await? != 0 {
        problems.push("rows of open transactions are shown".to_owned());
    }
    // These are the rows of transactions that have committed since.
    if system.database.number("SELECT count(*) FROM count_log").await? < 5 * PURGED_LOG_ROWS {
        problems.push(
            "the open transactions did not hold the purge back, so the run proves nothing about it"
                .to_owned(),
        );
    }
    rolled_back.batch_execute("ROLLBACK").await?;
    writer.batch_execute("COMMIT").await?;
    if !until(SERVICE_TIMEOUT, async || Ok(shown(&system).await? == OWN_ROWS)).await? {
        let shown = shown(&system).await?;
        problems.push(format!(
            "of a transaction of {OWN_ROWS} rows, {shown} are shown after its commit"
        ));
    }
    until_purged(&mut system, &mut problems).await?;

    log("a reading transaction is open");
    let reader = system.database.open_session().await?;
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM rollup")
        .await?;
    for when in ["a reading one, first half", "a reading one, second half"] {
        rows.push((when, measure(&mut system, step).await?));
    }
    reader.batch_execute("COMMIT").await?;
    until_purged(&mut system, &mut problems).await?;
    rows.push(("none, after", measure(&mut system, step / 2).await?));

    let mut report =
        "| open for long | versions a second | tick, ms | flush, ms | log rows | dead rollups |\n\
         |---|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for (what, Measurement { versions, tick, flush, log_rows, dead_rollups }) in &rows {
        // Writing to a string cannot fail.
        let _written = writeln!(
            report,
            "| {what} | {versions:.1} | {tick:.2} | {flush:.1} | {log_rows} | {dead_rollups} |"
        );
        if *versions < 1.0 {
            problems
                .push(format!("numbers hardly moved: {versions:.1} versions a second ({what})"));
        }
    }
    // Compared with the time without open transactions, and the second half with the first.
    for (earlier, later) in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (3, 4)] {
        let first = rows[earlier].1.tick;
        let last = rows[later].1.tick;
        if last > first * SLOWER_FACTOR + SLOWER_MILLISECONDS {
            problems.push(format!(
                "ticks got slower: {first:.2} ms, then {last:.2} ms ({})",
                rows[later].0
            ));
        }
    }
    problems.extend(system.observed().violation());
    problems.extend(world.history.take_violations());
    let writes = world.history.totals().acknowledged;
    // Writing to a string cannot fail.
    let _written = write!(
        report,
        "\neach of {} s, {writes} writes acknowledged in all, seed {seed}",
        step.as_secs()
    );
    drop(writers);
    finish(system).await?;
    Ok(SoakOutcome { report, problems })
}

/// Begins a transaction that inserts rows into a year without other events.
fn own_rows(base_item: Uuid) -> String {
    format!(
        "BEGIN; DO $$ BEGIN FOR n IN 1..{OWN_ROWS} LOOP INSERT INTO public.items VALUES (gen_random_uuid(), '{base_item}', \
         '1990-06-01Z'::timestamptz + n * interval '1 ms'); END LOOP; END $$"
    )
}

/// The number of these rows that a gateway shows.
async fn shown(system: &System) -> anyhow::Result<i64> {
    let gateway = system.stack.url(ServiceKind::SseGateway.replica(1));
    let request = client().get(format!("{gateway}/statistics/item-creation/year"));
    let text = request
        .header("accept", "application/json")
        .send()
        .await?
        .error_for_status()?
        .text()
        .await?;
    let window: serde_json::Value = serde_json::from_str(&text)?;
    let buckets = window["buckets"].as_array().context("an answer without buckets")?;
    let own = buckets
        .iter()
        .find(|bucket| bucket["time"].as_str().is_some_and(|time| time.starts_with("1990")));
    Ok(own.and_then(|bucket| bucket["count"].as_i64()).unwrap_or(0))
}

/// Waits until the change log is short again, after nothing holds the purge back any more.
async fn until_purged(system: &mut System, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let log_rows = "SELECT count(*) FROM count_log";
    let purged = async || Ok(system.database.number(log_rows).await? < PURGED_LOG_ROWS);
    if !until(SERVICE_TIMEOUT, purged).await? {
        let seconds = SERVICE_TIMEOUT.as_secs();
        problems.push(format!("the change log was not purged within {seconds} s"));
    }
    Ok(())
}

async fn measure(system: &mut System, time: Duration) -> anyhow::Result<Measurement> {
    let before = metrics(system).await?;
    let published = system.publications().len();
    tokio::time::sleep(time).await;
    let after = metrics(system).await?;
    let published = system.publications().len() - published;
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
    Ok(Measurement {
        versions: published as f64 / time.as_secs_f64(),
        tick: mean("notifier_tick_duration_seconds"),
        flush: mean("notifier_flush_duration_seconds"),
        log_rows: system.database.number("SELECT count(*) FROM count_log").await?,
        dead_rollups: system.database.number(dead).await?,
    })
}

/// The leader's metrics, each summed over its labels.
async fn metrics(system: &System) -> anyhow::Result<HashMap<String, f64>> {
    let url = format!("{}/metrics", system.stack.internal_url(system.leader().await?));
    let text = internal::get(url).await?.text().await?;
    let mut metrics: HashMap<String, f64> = HashMap::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(' ') && !line.contains("le=\""))
    {
        let (name, value) = line.rsplit_once(' ').context("a metric without a value")?;
        let name = name.split('{').next().unwrap_or(name);
        *metrics.entry(name.to_owned()).or_default() += value.parse::<f64>()?;
    }
    Ok(metrics)
}
