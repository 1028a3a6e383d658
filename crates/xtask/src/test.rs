//! `cargo xtask test`: everything that must hold before a change goes in.

use std::time::Instant;

use anyhow::{Context, bail};
use local_stack::postgres::{Cluster, ClusterSettings};
use local_stack::test_database::CLUSTER_VARIABLE;
use tokio::process::Command;

use crate::{chaos, contract, examples, page, postgres, up};

/// Tests that may be ignored, by their full names; reviewed, and empty for as long as possible.
const MAY_BE_IGNORED: &[&str] = &[];

/// Checks, then tests; `arguments` go to `cargo test`.
pub(crate) async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let started = Instant::now();
    // dashboard has the page within it.
    page::build().await?;
    step("formatting", cargo(&["fmt", "--all", "--check"])).await?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    step("lints", cargo(&clippy)).await?;
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", documentation).await?;
    // The services too, for the tests that run them as processes of their own.
    step("building the services", cargo(&up::BUILD)).await?;
    step("building the tests", cargo(&["test", "--workspace", "--locked", "--no-run"])).await?;

    examples::bring().await?;
    postgres::with_cluster(async |cluster, settings, connection| {
        test(cluster, settings, connection, arguments).await
    })
    .await?;
    println!("== all passed in {} s", started.elapsed().as_secs());
    Ok(())
}

async fn test(
    cluster: &Cluster,
    settings: &ClusterSettings,
    connection: &str,
    arguments: &[String],
) -> anyhow::Result<()> {
    local_stack::test_database::prepare_template(connection).await?;
    let mut ignored =
        cargo(&["test", "--workspace", "--locked", "--", "--ignored", "--list", "--format=terse"]);
    let listed = ignored.output().await.context("listing ignored tests")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let unreviewed: Vec<&str> = names.filter(|name| !MAY_BE_IGNORED.contains(name)).collect();
    if !unreviewed.is_empty() {
        bail!("these tests are ignored without being on the reviewed list: {}", unreviewed.join(", "));
    }
    let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.args(arguments).env(CLUSTER_VARIABLE, connection);
    step("tests", tests).await?;
    if !arguments.is_empty() {
        println!(
            "== API contract, tests of the dashboard's page: skipped, for only some tests were asked for"
        );
        return Ok(());
    }
    contract::run(settings, 0).await?;
    page::test().await?;
    page::test_in_browser(cluster, settings).await?;
    chaos::test().await
}

pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).kill_on_drop(true);
    command
}

/// Runs a command that must succeed, under its name.
pub(crate) async fn step(name: &str, mut command: Command) -> anyhow::Result<()> {
    println!("== {name}");
    let status = command.status().await.with_context(|| format!("{name} could not be run"))?;
    if !status.success() {
        bail!("{name} failed; see above");
    }
    Ok(())
}
