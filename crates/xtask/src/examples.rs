//! What it takes to check the examples of the documentation: Python, Node, and a TypeScript compiler.

use std::path::Path;
use std::process::Stdio;

use anyhow::bail;
use tokio::process::Command;

use crate::packages;
use crate::test::step;

/// Where the examples are, in the checkout.
const FOLDER: &str = "docs/examples";

/// Commands that succeed where what the examples need is there.
const NEEDED: [[&str; 3]; 3] = [
    ["python3", "-c", "import sys; sys.exit(sys.version_info < (3, 9))"],
    ["node", "-e", "process.exit(Number(process.versions.node.split('.')[0]) < 18 ? 1 : 0)"],
    ["npm", "--version", "--silent"],
];

/// Brings what is missing, as far as this machine allows.
pub(crate) async fn bring() -> anyhow::Result<()> {
    if !are_there().await && packages::can_install() {
        packages::install(&["python3", "nodejs", "npm"])?;
    }
    if !are_there().await {
        bail!(
            "the examples of the documentation need Python 3.9, Node 18 and npm, or newer ones: install them (macOS: \
             brew install python node), then try again"
        );
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(FOLDER);
    let changed = |path: &str| std::fs::metadata(folder.join(path)).and_then(|metadata| metadata.modified());
    let installed = changed("node_modules/.package-lock.json");
    if installed.is_ok_and(|installed| changed("package-lock.json").is_ok_and(|wanted| wanted <= installed)) {
        return Ok(());
    }
    let mut install = Command::new("npm");
    install.args(["ci", "--no-audit", "--no-fund"]).current_dir(folder).kill_on_drop(true);
    step("installing the TypeScript compiler of the examples", install).await
}

async fn are_there() -> bool {
    for [program, arguments @ ..] in NEEDED {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !command.status().await.is_ok_and(|status| status.success()) {
            return false;
        }
    }
    true
}
