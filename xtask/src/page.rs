//! Builds the page that dashboard serves, and runs its unit tests.

use std::path::Path;
use std::time::SystemTime;

use walkdir::WalkDir;

use crate::command::{in_checkout, step};
use crate::install::Installer;
use crate::node::Npm;

/// The folder of its sources, in the checkout.
pub(crate) const FOLDER: &str = "crates/dashboard/web";

/// Builds the page, unless it is newer than its sources.
pub(crate) async fn build(installer: Installer) -> anyhow::Result<()> {
    let folder = in_checkout(FOLDER);
    let built =
        std::fs::metadata(folder.join("dist/index.html")).and_then(|metadata| metadata.modified());
    if built.is_ok_and(|built| newest(&folder).is_some_and(|source| source <= built)) {
        return Ok(());
    }
    let npm = Npm::ensure(FOLDER, installer).await?;
    step("building the dashboard's page", npm.command(&["run", "build"])).await
}

/// Builds the page if possible, else prints why not. Returns whether there is a page: the rest of
/// the stack runs without one.
pub(crate) async fn build_or_explain(installer: Installer) -> bool {
    match build(installer).await {
        Ok(()) => true,
        Err(error) => {
            println!("== the dashboard is left out, because its page cannot be built: {error:#}");
            false
        }
    }
}

/// Tests the modules of the page by themselves.
pub(crate) async fn test(installer: Installer) -> anyhow::Result<()> {
    let npm = Npm::ensure(FOLDER, installer).await?;
    step("tests of the dashboard's page", npm.command(&["test"])).await
}

/// The time of the newest change to a source.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = WalkDir::new(folder).into_iter().filter_entry(|entry| {
        !["dist", "node_modules"].iter().any(|output| entry.file_name() == *output)
    });
    let files = entries.flatten().filter(|entry| entry.file_type().is_file());
    files.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}
