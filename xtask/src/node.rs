//! Node and npm: they build the dashboard's page, and check the examples of the documentation.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::bail;
use tokio::process::Command;

use crate::packages;
use crate::test::step;

/// Commands that succeed where what is needed is there.
const NEEDED: [[&str; 3]; 2] = [
    [
        "node",
        "-e",
        "const [a, b] = process.versions.node.split('.'); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)",
    ],
    ["npm", "--version", "--silent"],
];

/// Brings Node, as far as this machine allows.
///
/// # Errors
/// It cannot be had from here; the message says what to do.
pub(crate) async fn bring() -> anyhow::Result<()> {
    if !are_there(&NEEDED).await && packages::can_install() {
        packages::install(&["nodejs", "npm"])?;
    }
    if !are_there(&NEEDED).await {
        bail!(
            "Node 20.19 or newer, with npm, is needed: install it (https://nodejs.org, or brew install node)"
        );
    }
    Ok(())
}

/// Whether all of these commands succeed.
pub(crate) async fn are_there(needed: &[[&str; 3]]) -> bool {
    for [program, arguments @ ..] in needed {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !command.status().await.is_ok_and(|status| status.success()) {
            return false;
        }
    }
    true
}

/// A folder of the checkout.
pub(crate) fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Installs what the lock file of a folder names, where that is not there yet.
pub(crate) async fn install(name: &str, folder: &Path) -> anyhow::Result<()> {
    let changed = |path: &str| std::fs::metadata(folder.join(path)).and_then(|metadata| metadata.modified());
    let installed = changed("node_modules/.package-lock.json");
    if installed.is_ok_and(|installed| changed("package-lock.json").is_ok_and(|wanted| wanted <= installed)) {
        return Ok(());
    }
    step(name, npm(folder, &["ci", "--no-audit", "--no-fund"])).await
}

/// A command of npm in a folder.
pub(crate) fn npm(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command
}
