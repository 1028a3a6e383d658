//! Tests the dashboard's page in a real browser, against services of its own.

use std::path::PathBuf;

use anyhow::Context;
use local_stack::ports::reserve_port;
use local_stack::postgres::{Cluster, ClusterSettings};
use local_stack::stack::{Replicas, ServiceKind, built_programs};

use crate::command::step;
use crate::install::{Installer, find_program};
use crate::node::Npm;
use crate::{ephemeral_stack, page};

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
pub(crate) async fn test(
    cluster: &Cluster,
    settings: &ClusterSettings,
    installer: Installer,
) -> anyhow::Result<()> {
    let browser = ensure(installer)?;
    let npm = Npm::ensure(page::FOLDER, installer).await?;
    let replicas = Replicas { dashboard: 1, ..Replicas::ONE };
    let programs = built_programs()?;
    let mut stack =
        ephemeral_stack::start(settings, "newcycle_browser", replicas, &programs).await?;
    let notifier =
        stack.process_ids().find(|(instance, _)| instance.service == ServiceKind::StatsNotifier);
    let (_, notifier) = notifier.context("stats-notifier runs")?;
    let mut test = npm.command(&["run", "e2e"]);
    test.env("CHROMIUM", browser)
        .env("DASHBOARD_URL", stack.url(ServiceKind::Dashboard))
        // The tests serve the page themselves on this port, with a gateway that they may kill.
        .env("DASHBOARD_PORT", reserve_port()?.to_string())
        .env("GATEWAY_URL", stack.url(ServiceKind::SseGateway))
        .env("INGEST_URL", stack.url(ServiceKind::IngestApi))
        .env("NEWCYCLE__UPSTREAM__ADDRESSES", stack.url(ServiceKind::StatsNotifier))
        .env("NOTIFIER_PID", notifier.to_string())
        .env("POSTGRES_PID", cluster.process_id().to_string())
        .env("GATEWAY_PROGRAM", programs.join("sse-gateway"))
        .env("TEST_GATEWAY_PORT", reserve_port()?.to_string())
        .env("PICTURES", programs.join("dashboard-pictures"));
    tokio::select! {
        outcome = step("the dashboard in a browser", test) => outcome?,
        ended = stack.ended() => return Err(ended),
    }
    ephemeral_stack::stop(stack).await
}

/// A browser that the tests can control. Installs one on Debian and Ubuntu if there is none.
fn ensure(installer: Installer) -> anyhow::Result<PathBuf> {
    let find = || BROWSERS.into_iter().find_map(find_program);
    if find().is_none() {
        installer.packages(&["chromium"])?;
    }
    find().context("no Chromium was found to test the dashboard in: install it, then try again")
}
