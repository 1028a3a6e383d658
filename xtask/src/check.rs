//! `cargo xtask check`: fast checks that need no database.

use crate::command::{cargo, step};
use crate::install::Installer;
use crate::prose;
use crate::python::LINTERS;

/// Formatting, spelling, line length, migrations, lints and unit tests.
pub(crate) async fn run(installer: Installer) -> anyhow::Result<()> {
    lints(installer).await?;
    step("unit tests", cargo(&["test", "--workspace", "--lib", "--bins", "--locked"])).await?;
    println!("== all checks passed");
    Ok(())
}

/// All that needs no test to run.
pub(crate) async fn lints(installer: Installer) -> anyhow::Result<()> {
    step("formatting", cargo(&["fmt", "--all", "--check"])).await?;
    step("spelling", LINTERS.command("typos", &["--quiet"], installer)?).await?;
    prose::check()?;
    step("migrations", LINTERS.command("squawk", &["migrations/*.sql"], installer)?).await?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    step("lints", cargo(&clippy)).await
}
