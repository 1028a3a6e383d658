//! `cargo xtask chaos` and `soak`: faults, and long use, of the whole stack. The crate `chaos` does both; this builds and
//! brings what it needs.

use std::process::Command;

use anyhow::{Context, bail};
use local_stack::postgres::Installation;
use local_stack::stack::built_programs;

use crate::test::{cargo, step};
use crate::{packages, postgres, up};

/// Errors that are planted in the system, each of which a run must find.
const PLANTED: [&str; 4] = ["transactions-forgotten", "folded-twice", "acknowledged-early", "lead-kept"];

/// Runs it with these arguments.
pub(crate) async fn run(arguments: &[String]) -> anyhow::Result<()> {
    bring().await?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    program("chaos", "chaos", &arguments).await
}

/// Uses and disturbs everything for a while, and says what grew.
pub(crate) async fn soak(arguments: &[String]) -> anyhow::Result<()> {
    bring().await?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    program("soak", "soak", &arguments).await
}

/// A few minutes of both, and that chaos does find what is wrong.
pub(crate) async fn test() -> anyhow::Result<()> {
    bring().await?;
    for planted in PLANTED {
        let arguments = ["--seed", "1", "--faults", "12", "--planted", planted];
        program(&format!("chaos: {planted} must be found"), "chaos", &arguments).await?;
    }
    // Of one schedule, though not of one course of events, so that a change is judged by what it changed.
    program("chaos", "chaos", &["--seed", "1", "--faults", "42"]).await?;
    program("soak", "soak", &["--seconds", "45"]).await
}

/// Each kind of fault about once, on another Postgres. All is built already.
pub(crate) async fn test_again(installation: &Installation) -> anyhow::Result<()> {
    let programs = installation.programs().to_str().context("the path of Postgres is no text")?;
    let arguments = ["--seed", "2", "--faults", "21", "--postgres", programs];
    program(&format!("chaos on Postgres {}", installation.version()), "chaos", &arguments).await
}

async fn program(name: &str, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(built_programs()?.join(program));
    command.args(arguments).kill_on_drop(true);
    step(name, command).await
}

async fn bring() -> anyhow::Result<()> {
    let mut build = cargo(&up::BUILD);
    build.args(["-p", "chaos"]);
    step("building the services, and chaos", build).await?;
    postgres::bring()?;
    bring_faketime()
}

/// libfaketime, which steps clocks; without it, those faults are left out, and the run says so.
fn bring_faketime() -> anyhow::Result<()> {
    if Command::new("faketime").arg("--version").output().is_ok() {
        return Ok(());
    }
    if packages::can_install() {
        return packages::install(&["faketime"]).context("install libfaketime by hand, then try again");
    }
    if std::env::var_os("CI").is_some() {
        bail!("there is no libfaketime here: install it");
    }
    Ok(())
}
