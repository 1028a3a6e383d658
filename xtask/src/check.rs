//! `cargo xtask check`: fast checks that need no database.

use std::path::PathBuf;

use anyhow::Context;
use tokio::process::Command;

use crate::command::{cargo, in_checkout, step};
use crate::{prose, python};

/// Formatting, spelling, line length, migrations, lints and unit tests.
///
/// # Errors
/// A check fails, or a linter cannot be installed.
pub(crate) async fn run() -> anyhow::Result<()> {
    lints().await?;
    step("unit tests", cargo(&["test", "--workspace", "--lib", "--bins", "--locked"])).await?;
    println!("== all checks passed");
    Ok(())
}

/// All that needs no test to run.
///
/// # Errors
/// A check fails, or a linter cannot be installed.
pub(crate) async fn lints() -> anyhow::Result<()> {
    step("formatting", cargo(&["fmt", "--all", "--check"])).await?;
    let linters = python::LINTERS.ensure()?;
    let linter = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(linters.join(name));
        command.args(arguments).current_dir(in_checkout("")).kill_on_drop(true);
        command
    };
    step("spelling", linter("typos", &["--quiet"])).await?;
    prose::check()?;
    let mut squawk = linter("squawk", &[]);
    squawk.args(migrations()?);
    step("migrations", squawk).await?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    step("lints", cargo(&clippy)).await
}

/// The migrations in their order.
fn migrations() -> anyhow::Result<Vec<PathBuf>> {
    let folder = in_checkout("migrations");
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let is_sql = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sql");
    let mut migrations: Vec<PathBuf> = paths.into_iter().filter(is_sql).collect();
    migrations.sort();
    Ok(migrations)
}
