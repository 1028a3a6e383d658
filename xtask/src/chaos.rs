//! `cargo xtask chaos` and `soak`: faults in the whole stack, and long use of it. The crate `chaos`
//! does both; this builds and installs what it needs.

use std::ffi::OsStr;

use anyhow::Context;
use local_stack::path::find_program;
use local_stack::postgres::Installation;
use local_stack::stack::built_programs;
use tokio::process::Command;

use crate::command::step;
use crate::install::Installer;
use crate::{postgres, programs};

/// Errors that are planted in the system. A run must find each of them.
const PLANTED: [&str; 6] = [
    "transactions-forgotten",
    "folded-twice",
    "acknowledged-early",
    "acknowledged-before-commit",
    "wrong-caller",
    "lead-kept",
];

/// Runs one of the crate's programs, `chaos` or `soak`, with these arguments.
pub(crate) async fn run(
    program: &str,
    arguments: &[String],
    installer: Installer,
) -> anyhow::Result<()> {
    ensure(installer).await?;
    self::program(program, program, arguments).await
}

/// A few minutes of both, after proving that chaos finds planted errors.
pub(crate) async fn test(installer: Installer) -> anyhow::Result<()> {
    ensure(installer).await?;
    for planted in PLANTED {
        let arguments = ["--seed", "1", "--faults", "12", "--planted", planted];
        program(&format!("chaos: {planted} must be found"), "chaos", &arguments).await?;
    }
    // The schedule of faults is always the same, so that a change is judged by its own effect.
    program("chaos", "chaos", &["--seed", "1", "--faults", "46"]).await?;
    program("soak", "soak", &["--seconds", "45"]).await
}

/// Most kinds of faults once, on another Postgres. The programs must be built.
pub(crate) async fn test_on(installation: &Installation) -> anyhow::Result<()> {
    let programs = installation.programs().to_str().context("the path of Postgres is not UTF-8")?;
    let arguments = ["--seed", "2", "--faults", "23", "--postgres", programs];
    program(&format!("chaos on Postgres {}", installation.version()), "chaos", &arguments).await
}

/// What takes too long for every change: about 25 minutes.
pub(crate) async fn test_long(installer: Installer) -> anyhow::Result<()> {
    ensure(installer).await?;
    program("chaos, 300 faults", "chaos", &["--faults", "300"]).await?;
    program("soak, ten minutes", "soak", &["--seconds", "600"]).await
}

/// Runs one of the crate's programs, which must be built, as a step.
pub(crate) async fn program(
    name: &str,
    program: &str,
    arguments: &[impl AsRef<OsStr>],
) -> anyhow::Result<()> {
    let mut command = Command::new(built_programs()?.join(program));
    command.args(arguments).kill_on_drop(true);
    step(name, command).await
}

/// Builds the programs and installs what they use. libfaketime steps clocks: without it, a run
/// leaves out those faults and says so.
async fn ensure(installer: Installer) -> anyhow::Result<()> {
    programs::services_and_chaos().await?;
    postgres::ensure(installer)?;
    if find_program("faketime").is_some() {
        return Ok(());
    }
    match installer.packages(&["faketime"]) {
        Err(error) if std::env::var_os("CI").is_none() => {
            println!("== the clock is not stepped: {error:#}");
            Ok(())
        }
        installed => installed,
    }
}
