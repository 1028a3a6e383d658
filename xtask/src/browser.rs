//! Tests the dashboard's page in a real browser, against services of its own.

use std::path::PathBuf;

use anyhow::Context;
use local_stack::ports::reserve_port;
use local_stack::postgres::{Cluster, ClusterSettings};
use local_stack::stack::{Replicas, ServiceKind, built_programs};

use crate::command::{in_checkout, step};
use crate::node::Node;
use crate::{ephemeral_stack, install, page};

/// Browsers that the tests can control, by name or path.
const BROWSERS: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/// Runs the tests with services on a database of their own in this cluster. The tests freeze and
/// kill some of them.
///
/// # Errors
/// There is no browser, or a test fails.
pub(crate) async fn test(cluster: &Cluster, settings: &ClusterSettings) -> anyhow::Result<()> {
    let browser = ensure()?;
    let node = Node::ensure().await?;
    let folder = in_checkout(page::FOLDER);
    node.install("installing what the dashboard's page is tested with", &folder).await?;
    let replicas = Replicas { dashboard: 1, ..Replicas::ONE };
    let mut stack = ephemeral_stack::start(settings, "newcycle_browser", replicas).await?;
    let notifier =
        stack.process_ids().find(|(instance, _)| instance.service == ServiceKind::StatsNotifier);
    let (_, notifier) = notifier.context("stats-notifier runs")?;
    let mut test = node.npm(&folder, &["run", "e2e"]);
    test.env("CHROMIUM", browser)
        .env("DASHBOARD_URL", stack.url(ServiceKind::Dashboard))
        // The tests serve the page themselves on this port, with a gateway that they may kill.
        .env("DASHBOARD_PORT", reserve_port()?.to_string())
        .env("GATEWAY_URL", stack.url(ServiceKind::SseGateway))
        .env("INGEST_URL", stack.url(ServiceKind::IngestApi))
        .env("NEWCYCLE__UPSTREAM__ADDRESSES", stack.url(ServiceKind::StatsNotifier))
        .env("NOTIFIER_PID", notifier.to_string())
        .env("POSTGRES_PID", cluster.process_id().to_string())
        .env("GATEWAY_PROGRAM", built_programs()?.join("sse-gateway"))
        .env("TEST_GATEWAY_PORT", reserve_port()?.to_string())
        .env("PICTURES", built_programs()?.join("dashboard-pictures"));
    tokio::select! {
        outcome = step("the dashboard in a browser", test) => outcome?,
        ended = stack.ended() => return Err(ended.into()),
    }
    ephemeral_stack::stop(stack).await
}

/// A browser that the tests can control. Installs one on Debian and Ubuntu if there is none.
fn ensure() -> anyhow::Result<PathBuf> {
    if find().is_none() {
        install::packages(&["chromium"])?;
    }
    find().context("no Chromium was found to test the dashboard in: install it, then try again")
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Joining a folder with an absolute path gives the absolute path.
    let candidates =
        BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    candidates.into_iter().find(|program| program.is_file())
}
