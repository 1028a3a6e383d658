//! Tests the dashboard's page in real browsers, against services of its own: in Chromium, and in a
//! short form in Firefox and `WebKit`.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use local_stack::internal;
use local_stack::path::find_program;
use local_stack::ports::reserve_port;
use local_stack::postgres::{Cluster, ClusterSettings};
use local_stack::stack::{Replicas, ServiceKind, built_programs};
use local_stack::test_database::{TEST_KEY, TestDatabase};
use secrecy::ExposeSecret;

use crate::command::step;
use crate::install::Installer;
use crate::node::Npm;
use crate::{ephemeral_stack, page, postgres, programs};

/// Browsers that the tests can control, by name or path. The first has no window at all: its tests
/// take two thirds of the time.
const BROWSERS: [&str; 6] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/// The database of the tests.
const DATABASE: &str = "newcycle_browser";

/// A program that the short form of the tests needs.
pub(crate) struct Other {
    /// The environment variable that names it to the tests.
    variable: &'static str,
    /// Its names on PATH.
    names: &'static [&'static str],
    /// The Debian package that has it.
    pub(crate) package: &'static str,
}

pub(crate) const OTHERS: [Other; 3] = [
    Other { variable: "FIREFOX", names: &["firefox-esr", "firefox"], package: "firefox-esr" },
    Other { variable: "WEBKIT_DRIVER", names: &["WebKitWebDriver"], package: "webkit2gtk-driver" },
    // WebKit has no mode without a display.
    Other { variable: "XVFB", names: &["Xvfb"], package: "xvfb" },
];

impl Other {
    pub(crate) fn find(&self) -> Option<PathBuf> {
        self.names.iter().find_map(|name| find_program(name))
    }
}

/// Builds the page and the services, then tests with a cluster of its own, all or only some files.
pub(crate) async fn command(files: &[String], installer: Installer) -> anyhow::Result<()> {
    page::build(installer).await?;
    programs::services().await?;
    let installation = postgres::ensure(installer)?;
    let settings = postgres::temporary_cluster("browsers")?;
    let run = async |cluster: &Cluster| test(cluster, &settings, files, installer).await;
    postgres::with_cluster(&installation, &settings, run).await
}

/// Runs the tests with services on a database of their own in this cluster. The tests freeze and
/// kill some of them. With `files`, only those whose names have one of these words.
pub(crate) async fn test(
    cluster: &Cluster,
    settings: &ClusterSettings,
    files: &[String],
    installer: Installer,
) -> anyhow::Result<()> {
    let browser = ensure(installer)?;
    let others = ensure_others(installer)?;
    let nginx = ensure_proxy("nginx", installer)?;
    let caddy = ensure_proxy("caddy", installer)?;
    let npm = Npm::ensure(page::FOLDER, installer).await?;
    let replicas = Replicas { dashboard: 1, ..Replicas::ONE };
    let programs = built_programs()?;
    let mut stack = ephemeral_stack::start(settings, DATABASE, replicas, &programs).await?;
    let notifier =
        stack.process_ids().find(|(instance, _)| instance.service == ServiceKind::StatsNotifier);
    let (_, notifier) = notifier.context("stats-notifier runs")?;
    let dashboard = stack.url(ServiceKind::Dashboard);
    let mut test = npm.command(&["run", "e2e", "--"]);
    test.args(files)
        .env("CHROMIUM", browser)
        .env("LOGIN_LINK", format!("{dashboard}/#{TEST_KEY}"))
        .env("DASHBOARD_URL", dashboard)
        // With these, the tests make further keys, and revoke them.
        .env("ACCESS_PROGRAM", programs.join("access"))
        .env("ACCESS_PASSWORD", TestDatabase::roles().access_password.expose_secret())
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", settings.port.to_string())
        .env("PGDATABASE", DATABASE)
        // The tests serve the page themselves on this port, with a gateway that they may kill.
        .env("DASHBOARD_PORT", reserve_port()?.to_string())
        .env("GATEWAY_URL", stack.url(ServiceKind::SseGateway))
        .env("INGEST_URL", stack.url(ServiceKind::IngestApi))
        .env("NEWCYCLE__UPSTREAM__ADDRESSES", stack.url(ServiceKind::StatsNotifier))
        .env("NEWCYCLE__INTERNAL__SECRET_FILE", internal::secret_file())
        .env("NOTIFIER_PID", notifier.to_string())
        .env("POSTGRES_PID", cluster.process_id().to_string())
        .env("GATEWAY_PROGRAM", programs.join("sse-gateway"))
        .env("TEST_GATEWAY_PORT", reserve_port()?.to_string())
        .env("PICTURES", programs.join("dashboard-pictures"))
        .env("TEST_NGINX_PORT", reserve_port()?.to_string())
        .env("NGINX", nginx)
        // Behind Caddy are services of the test's own, with settings for it.
        .env("CADDY", caddy)
        .env("CADDY_PORTS", reserve_ports(7)?)
        .env("DASHBOARD_PROGRAM", programs.join("dashboard"))
        .env("INGEST_PROGRAM", programs.join("ingest-api"))
        .env("INGEST_PASSWORD", TestDatabase::roles().ingest_password.expose_secret())
        .envs(others);
    tokio::select! {
        outcome = step("the dashboard in browsers", test) => outcome?,
        ended = stack.ended() => return Err(ended),
    }
    ephemeral_stack::stop(stack).await
}

/// A browser that the tests can control.
pub(crate) fn chromium() -> Option<PathBuf> {
    BROWSERS.into_iter().find_map(find_program)
}

/// A browser that the tests can control. Installs one on Debian and Ubuntu if there is none.
fn ensure(installer: Installer) -> anyhow::Result<PathBuf> {
    if chromium().is_none() {
        installer.packages(&["chromium-headless-shell"])?;
    }
    chromium().context("no Chromium was found to test the dashboard in: install it, then try again")
}

/// A proxy in front of the services in one of the tests. Installs it on Debian and Ubuntu if it is
/// missing.
fn ensure_proxy(name: &str, installer: Installer) -> anyhow::Result<PathBuf> {
    if find_program(name).is_none() {
        installer.package_without_service(name, name)?;
    }
    find_program(name).with_context(|| format!("{name} is missing: install it, then try again"))
}

/// Ports for a test, separated by commas.
fn reserve_ports(count: usize) -> io::Result<String> {
    let ports: Vec<String> =
        (0..count).map(|_| Ok(reserve_port()?.to_string())).collect::<io::Result<_>>()?;
    Ok(ports.join(","))
}

/// The variables of the programs for the short form of the tests, which it installs if they are
/// missing. None of them elsewhere than on Linux, where there is no `WebKitGTK`.
fn ensure_others(installer: Installer) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    if !cfg!(target_os = "linux") {
        println!("== SKIPPED: the dashboard in Firefox and WebKit, because this is not Linux");
        return Ok(Vec::new());
    }
    let missing = OTHERS.iter().filter(|other| other.find().is_none());
    let packages: Vec<&str> = missing.map(|other| other.package).collect();
    if !packages.is_empty() {
        installer.packages(&packages)?;
    }
    let found = OTHERS.iter().map(|other| {
        let program = other.find().with_context(|| format!("{} is not on PATH", other.names[0]))?;
        Ok((other.variable, program))
    });
    found.collect()
}
