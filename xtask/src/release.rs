//! `cargo xtask release`: the programs as they ship, each without symbols and of a bounded size.
//!
//! The script that takes the symbols out is the one of `deploy/Dockerfile`, so this also tests it.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::command::{in_checkout, step, target_folder};
use crate::install::Installer;
use crate::{page, programs};

/// Asks gdb for the file and the line of a function that every program has.
const SYMBOL: &str = "info line rust_panic";

/// Builds the programs for release, and takes their symbols out. Fails if a program is too large,
/// or does not find its symbols.
pub(crate) async fn run(installer: Installer) -> anyhow::Result<()> {
    // The page is a part of `dashboard`.
    page::build(installer).await?;
    installer.programs(&[("objcopy", "binutils"), ("gdb", "gdb")])?;
    programs::services_for_release().await?;
    let target = target_folder()?;
    let [stripped, symbols] =
        ["programs", "symbols"].map(|name| target.join("release-files").join(name));
    split(&target.join("release"), &stripped, &symbols).await?;
    for program in programs::SERVICES {
        find_symbols(&stripped.join(program), &symbols).await?;
    }
    println!(
        "== the programs are in {}, their symbols in {}",
        stripped.display(),
        symbols.display()
    );
    Ok(())
}

async fn split(from: &Path, programs: &Path, symbols: &Path) -> anyhow::Result<()> {
    let mut split = Command::new("sh");
    split.arg(in_checkout("deploy/split-symbols.sh")).args([from, programs, symbols]);
    split.args(programs::SERVICES);
    step("sizes of the programs", split).await
}

/// Checks that a debugger finds the symbols of a program next to it, with lines.
async fn find_symbols(program: &Path, symbols: &Path) -> anyhow::Result<()> {
    let name = program.file_name().context("a program has a name")?;
    let mut debug = PathBuf::from(name);
    debug.set_extension("debug");
    let link = program.with_file_name(&debug);
    std::fs::copy(symbols.join(&debug), &link)
        .with_context(|| format!("copying the symbols of {}", program.display()))?;
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set auto-load off", "-ex", SYMBOL]).arg(program);
    let output = gdb.output().await.context("running gdb")?;
    std::fs::remove_file(&link).with_context(|| format!("removing {}", link.display()))?;
    let shown = String::from_utf8_lossy(&output.stdout);
    let is_found = output.status.success() && shown.contains("panicking.rs\" starts at address");
    ensure!(is_found, "gdb finds no symbols of {}: {shown}", program.display());
    Ok(())
}
