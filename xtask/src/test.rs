//! `cargo xtask test`: everything that a change needs before it goes in.

use std::time::Instant;

use anyhow::{Context, bail};

use crate::command::{cargo, step};
use crate::test_cluster::TestCluster;
use crate::{check, examples, install, page, postgres, programs};

/// Tests that may be ignored, by their full names. Reviewers agree to each; usually there is none.
const MAY_BE_IGNORED: &[&str] = &[];

/// The programs that tests call, and their Debian packages.
const PROGRAMS: [(&str, &str); 2] = [("curl", "curl"), ("ps", "procps")];

/// Checks, builds and tests all of it; with `arguments`, only runs the tests that `cargo test`
/// selects by them.
///
/// # Errors
/// A check or a test fails, or something is missing that cannot be installed.
pub(crate) async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let started = Instant::now();
    if arguments.is_empty() {
        check::lints().await?;
        let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
        documentation.env("RUSTDOCFLAGS", "-D warnings");
        step("documentation", documentation).await?;
    } else {
        println!(
            "== checks, documentation, the dashboard's page: skipped, because you asked for some tests"
        );
    }
    page::build().await?;
    programs::services().await?;
    step("building the tests", cargo(&["test", "--workspace", "--locked", "--no-run"])).await?;
    check_ignored().await?;
    install::programs(&PROGRAMS)?;
    examples::ensure().await?;
    let installation = postgres::ensure()?;
    postgres::with_cluster(&installation, async |_, settings| {
        let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
        tests.args(arguments);
        TestCluster::prepare(settings, &[&installation]).await?.pass_to(&mut tests);
        step("tests", tests).await
    })
    .await?;
    if arguments.is_empty() {
        page::test().await?;
    }
    println!(
        "== all passed on Postgres {} in {} s",
        installation.version(),
        started.elapsed().as_secs()
    );
    Ok(())
}

/// Refuses tests that are ignored without being on the list.
async fn check_ignored() -> anyhow::Result<()> {
    let mut list =
        cargo(&["test", "--workspace", "--locked", "--", "--ignored", "--list", "--format=terse"]);
    let listed = list.output().await.context("listing ignored tests")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let unreviewed: Vec<&str> = names.filter(|name| !MAY_BE_IGNORED.contains(name)).collect();
    if !unreviewed.is_empty() {
        bail!(
            "these tests are ignored without being on the reviewed list: {}",
            unreviewed.join(", ")
        );
    }
    Ok(())
}
