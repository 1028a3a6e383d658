//! `cargo xtask test`: everything that a change needs before it goes in.

use std::time::Instant;

use anyhow::{Context, bail};
use local_stack::path::find_program;

use crate::command::{cargo, step};
use crate::install::Installer;
use crate::node::Npm;
use crate::{check, page, postgres, programs, python};

/// The programs that tests call, and their Debian packages.
const PROGRAMS: [(&str, &str); 3] = [("curl", "curl"), ("ps", "procps"), ("python3", "python3")];

/// Checks, builds and tests all of it; with `arguments`, only runs the tests that `cargo test`
/// selects by them.
pub(crate) async fn run(arguments: &[String], installer: Installer) -> anyhow::Result<()> {
    let started = Instant::now();
    if arguments.is_empty() {
        check::lints(installer).await?;
        let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
        documentation.env("RUSTDOCFLAGS", "-D warnings");
        step("documentation", documentation).await?;
    } else {
        println!(
            "== checks, documentation, the dashboard's page: skipped, because you asked for some tests"
        );
    }
    page::build(installer).await?;
    programs::services().await?;
    step("building the tests", cargo(&["test", "--workspace", "--locked", "--no-run"])).await?;
    check_ignored().await?;
    installer.programs(&PROGRAMS)?;
    if find_program("pgbouncer").is_none() {
        installer.package_without_service("pgbouncer", "pgbouncer")?;
    }
    if find_program("prometheus").is_none() {
        installer.package_without_service("prometheus", "prometheus")?;
    }
    python::check_on_path()?;
    // The examples' TypeScript compiler.
    Npm::ensure("docs/examples", installer).await?;
    let installation = postgres::ensure(installer)?;
    let settings = postgres::temporary_cluster("test")?;
    postgres::with_cluster(&installation, &settings, async |_| {
        let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
        tests.args(arguments);
        tests.envs(postgres::prepare_tests(&settings, &[&installation]).await?);
        step("tests", tests).await
    })
    .await?;
    if arguments.is_empty() {
        page::test(installer).await?;
    }
    println!(
        "== all passed on Postgres {} in {} s",
        installation.version(),
        started.elapsed().as_secs()
    );
    Ok(())
}

/// The modules of tests that take minutes begin with this. They are ignored here, and run by
/// `cargo xtask ci --long`.
pub(crate) const LONG: &str = "long_";

/// Refuses other ignored tests: one that does not run proves nothing.
async fn check_ignored() -> anyhow::Result<()> {
    let mut list =
        cargo(&["test", "--workspace", "--locked", "--", "--ignored", "--list", "--format=terse"]);
    let listed = list.output().await.context("listing ignored tests")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let names: Vec<&str> = names.filter(|name| !name.starts_with(LONG)).collect();
    if !names.is_empty() {
        bail!("these tests are ignored: {}: mend or delete them", names.join(", "));
    }
    Ok(())
}
