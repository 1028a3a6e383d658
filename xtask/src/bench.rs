//! `cargo xtask bench`: figures as ratios within one run, because machines differ and are noisy.
//!
//! Invariant: the builds take turns on the same Postgres, which keeps commits as in production
//! (`fsync` and `synchronous_commit` on). No figure is judged here: a bench prints, a reader
//! decides.

mod backfill;
mod triggers;

use std::path::Path;

use anyhow::{Context, bail};
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Replicas, ServiceKind, Stack, built_programs};
use tokio::process::Command;

use crate::command::target_folder;
use crate::install::Installer;
use crate::{ephemeral_stack, postgres, programs};

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// Compare the throughput of POST /items between the build that `up` runs and a release build.
    Profile(ProfileOptions),
    /// Measure what clients notice of one statement on very many events of past times.
    Backfill(backfill::BackfillOptions),
    /// Measure what the trigger for INSERT and its parts cost a producer.
    Triggers(triggers::TriggersOptions),
}

/// How long to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct ProfileOptions {
    /// Rounds; each measures both builds once.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of load for each build in each round.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Keep-alive connections of the load generator.
    #[arg(long, default_value_t = 64)]
    connections: u32,
}

/// A build of the services, its running stack, and what was measured.
struct MeasuredBuild {
    name: &'static str,
    stack: Stack,
    requests_per_second: Vec<f64>,
}

/// Runs a bench.
pub(crate) async fn run(bench: Bench, installer: Installer) -> anyhow::Result<()> {
    if matches!(bench, Bench::Profile(_)) {
        installer.programs(&[("wrk", "wrk")])?;
        programs::services_for_release().await?;
    }
    if !matches!(bench, Bench::Triggers(_)) {
        programs::services().await?;
    }
    let installation = postgres::ensure(installer)?;
    let cluster = ClusterSettings { durable: true, ..postgres::temporary_cluster("bench")? };
    postgres::with_cluster(&installation, &cluster, async |server| match &bench {
        Bench::Profile(options) => compare(&cluster, options).await,
        Bench::Backfill(options) => backfill::run(&cluster, options).await,
        Bench::Triggers(options) => triggers::run(&installation, server, &cluster, options).await,
    })
    .await
}

async fn compare(cluster: &ClusterSettings, options: &ProfileOptions) -> anyhow::Result<()> {
    let script = cluster.folder.join("post-items.lua");
    write_script(&script)?;
    let mut builds = Vec::new();
    for (name, programs) in
        [("up", built_programs()?), ("release", target_folder()?.join("release"))]
    {
        let database = format!("newcycle_bench_{name}");
        let stack = ephemeral_stack::start(cluster, &database, Replicas::ONE, &programs).await?;
        ephemeral_stack::store_rows(&stack.url(ServiceKind::IngestApi)).await?;
        builds.push(MeasuredBuild { name, stack, requests_per_second: Vec::new() });
    }
    for round in 1..=options.rounds {
        println!("== round {round} of {}", options.rounds);
        for build in &mut builds {
            let url = build.stack.url(ServiceKind::IngestApi);
            let rate = load(&script, &url, options).await?;
            println!("{:>8}: {rate:.0} requests/s", build.name);
            build.requests_per_second.push(rate);
        }
    }
    println!(
        "== POST /items, {} connections, medians of {} rounds",
        options.connections, options.rounds
    );
    let mut medians = Vec::new();
    for build in builds {
        let mut rates = build.requests_per_second;
        rates.sort_by(f64::total_cmp);
        let median = median(&rates).context("there must be at least one round")?;
        println!(
            "{:>8}: {median:.0} requests/s (lowest {:.0}, highest {:.0})",
            build.name,
            rates[0],
            rates[rates.len() - 1],
        );
        medians.push(median);
        ephemeral_stack::stop(build.stack).await?;
    }
    if let [up, release] = medians[..] {
        println!("up ÷ release: {:.2}", up / release);
    }
    Ok(())
}

/// The middle one of sorted values; of an even number, the lower of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// Writes the script that makes wrk post items of [`ephemeral_stack::BASE_ITEM`].
fn write_script(path: &Path) -> anyhow::Result<()> {
    let script = format!(
        "wrk.method = \"POST\"\nwrk.headers[\"content-type\"] = \"application/json\"\n\
         wrk.body = '{{\"base_item_id\":\"{}\"}}'\n",
        ephemeral_stack::BASE_ITEM
    );
    std::fs::write(path, script).with_context(|| format!("writing {}", path.display()))
}

/// Posts items for a while. Returns the number of answers a second, all of which must be 2xx.
async fn load(script: &Path, url: &str, options: &ProfileOptions) -> anyhow::Result<f64> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads", "1", "--connections", &options.connections.to_string()])
        .args(["--duration", &format!("{}s", options.seconds), "--script"])
        .arg(script)
        .arg(format!("{url}/items"))
        .kill_on_drop(true);
    let output = wrk.output().await.context("running wrk")?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || report.contains("Non-2xx") || report.contains("Socket errors") {
        bail!("not every request was answered with 2xx:\n{report}");
    }
    rate(&report).with_context(|| format!("wrk printed no rate:\n{report}"))
}

/// The rate in a report of wrk.
fn rate(report: &str) -> Option<f64> {
    let line = report.lines().find_map(|line| line.strip_prefix("Requests/sec:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_a_report() {
        assert_eq!(
            rate("  10 requests in 1.00s\nRequests/sec:   4321.09\nTransfer/sec: 1MB\n"),
            Some(4321.09)
        );
        assert_eq!(rate("unable to connect"), None);
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0]), Some(1.0));
        assert_eq!(median(&[]), None);
    }
}
