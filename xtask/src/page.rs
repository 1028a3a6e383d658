//! Builds the page that dashboard serves, and runs its unit tests.

use std::path::Path;
use std::time::SystemTime;

use crate::command::{in_checkout, step};
use crate::node::Node;

/// The folder of its sources, in the checkout.
pub(crate) const FOLDER: &str = "crates/dashboard/web";

/// Builds the page, unless it is newer than its sources.
///
/// # Errors
/// Node is missing and cannot be installed, or the build fails.
pub(crate) async fn build() -> anyhow::Result<()> {
    let folder = in_checkout(FOLDER);
    let built =
        std::fs::metadata(folder.join("dist/index.html")).and_then(|metadata| metadata.modified());
    if built.is_ok_and(|built| newest(&folder).is_ok_and(|source| source <= built)) {
        return Ok(());
    }
    let node = Node::ensure().await?;
    node.install("installing what the dashboard's page is built with", &folder).await?;
    step("building the dashboard's page", node.npm(&folder, &["run", "build"])).await
}

/// Builds the page if possible, else prints why not. Returns whether there is a page: the rest of
/// the stack runs without one.
pub(crate) async fn build_or_explain() -> bool {
    match build().await {
        Ok(()) => true,
        Err(error) => {
            println!("== the dashboard is left out, because its page cannot be built: {error:#}");
            false
        }
    }
}

/// Tests the modules of the page by themselves.
///
/// # Errors
/// A test fails.
pub(crate) async fn test() -> anyhow::Result<()> {
    let folder = in_checkout(FOLDER);
    let node = Node::ensure().await?;
    node.install("installing what the dashboard's page is tested with", &folder).await?;
    step("tests of the dashboard's page", node.npm(&folder, &["test"])).await
}

/// The time of the newest change to a source.
fn newest(folder: &Path) -> std::io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_output = ["dist", "node_modules"].iter().any(|name| entry.file_name() == *name);
        let changed = match entry.file_type()? {
            kind if kind.is_dir() && !is_output => self::newest(&entry.path())?,
            kind if kind.is_file() => entry.metadata()?.modified()?,
            _ => continue,
        };
        newest = newest.max(changed);
    }
    Ok(newest)
}
