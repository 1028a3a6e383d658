//! Builds the page that dashboard serves, and puts it to the test in a real browser.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use local_stack::postgres::{Cluster, ClusterSettings};
use local_stack::ports::reserve_port;
use local_stack::stack::{ServiceKind, Replicas, built_programs};

use crate::test::step;
use crate::{node, packages, trial};

/// Where its sources are, in the checkout.
const FOLDER: &str = "crates/dashboard/web";

/// Browsers that the tests can drive, by name or path.
const BROWSERS: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/// Builds the page where it is not what its sources say.
///
/// # Errors
/// Node cannot be had, or the build fails.
pub(crate) async fn build() -> anyhow::Result<()> {
    let folder = node::folder(FOLDER);
    let built = std::fs::metadata(folder.join("dist/index.html")).and_then(|metadata| metadata.modified());
    if built.is_ok_and(|built| newest(&folder).is_ok_and(|source| source <= built)) {
        return Ok(());
    }
    node::bring().await?;
    node::install("installing what the dashboard's page is built with", &folder).await?;
    step("building the dashboard's page", node::npm(&folder, &["run", "build"])).await
}

/// When the newest source was changed.
fn newest(folder: &Path) -> std::io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let made = ["dist", "node_modules"].iter().any(|name| entry.file_name() == *name);
        let changed = match entry.file_type()? {
            kind if kind.is_dir() && !made => self::newest(&entry.path())?,
            kind if kind.is_file() => entry.metadata()?.modified()?,
            _ => continue,
        };
        newest = newest.max(changed);
    }
    Ok(newest)
}

/// Tests the modules of the page by themselves.
pub(crate) async fn test() -> anyhow::Result<()> {
    let folder = node::folder(FOLDER);
    node::install("installing what the dashboard's page is tested with", &folder).await?;
    step("tests of the dashboard's page", node::npm(&folder, &["test"])).await
}

/// Tests the page in a browser, against services on a database of their own in this cluster, some of which are frozen and
/// killed meanwhile.
pub(crate) async fn test_in_browser(cluster: &Cluster, settings: &ClusterSettings) -> anyhow::Result<()> {
    let browser = browser()?;
    let mut stack =
        trial::start(settings, "newcycle_browser", Replicas { dashboard: 1, ..Replicas::ONE }).await?;
    let notifier = stack.process_ids().find(|(instance, _)| instance.service == ServiceKind::StatsNotifier);
    let (_, notifier) = notifier.context("stats-notifier runs")?;
    let mut test = node::npm(&node::folder(FOLDER), &["run", "e2e"]);
    test.env("CHROMIUM", browser)
        .env("DASHBOARD_URL", stack.url(ServiceKind::Dashboard))
        // Where the tests serve the page by themselves, to have it follow a gateway that they may kill.
        .env("DASHBOARD_PORT", reserve_port()?.to_string())
        .env("GATEWAY_URL", stack.url(ServiceKind::SseGateway))
        .env("INGEST_URL", stack.url(ServiceKind::IngestApi))
        .env("NEWCYCLE_UPSTREAMS", stack.url(ServiceKind::StatsNotifier))
        .env("NOTIFIER_PID", notifier.to_string())
        .env("POSTGRES_PID", cluster.process_id().to_string())
        .env("GATEWAY_PROGRAM", built_programs()?.join("sse-gateway"))
        .env("TEST_GATEWAY_PORT", reserve_port()?.to_string())
        .env("PICTURES", built_programs()?.join("dashboard-pictures"));
    tokio::select! {
        outcome = step("the dashboard in a browser", test) => outcome?,
        ended = stack.ended() => return Err(ended.into()),
    }
    trial::stop(stack).await
}

/// A browser to drive; installed first on Debian where there is none.
fn browser() -> anyhow::Result<PathBuf> {
    if find().is_none() && packages::can_install() {
        packages::install(&["chromium"])?;
    }
    find()
        .context("no Chromium was found, in which the dashboard could be tested: install it, then try again")
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // A path of its own stays one where it is joined to a folder.
    let candidates = BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    candidates.into_iter().find(|program| program.is_file())
}

/// Whether `up` can show the page: it says why not, and starts everything else.
pub(crate) async fn build_or_say() -> bool {
    match build().await {
        Ok(()) => true,
        Err(error) => {
            println!("== the dashboard is left out, for its page cannot be built: {error:#}");
            false
        }
    }
}
