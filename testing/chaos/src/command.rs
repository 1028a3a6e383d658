//! Runs programs of the operating system.

use std::path::Path;

use anyhow::{Context, bail};

/// Runs a program that must succeed.
///
/// # Errors
/// It fails; the error has what it wrote to standard error.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("{program} could not be run"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// A path as an argument of a program.
pub(crate) fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))
}
