//! `cargo xtask test`: everything that must hold before a change goes in.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use local_stack::postgres::{Cluster, ClusterSettings, Installation};
use local_stack::test_database::{CLUSTER_VARIABLE, INSTALLATIONS_VARIABLE};
use tokio::process::Command;

use crate::{chaos, contract, examples, page, postgres, up};

/// Tests that may be ignored, by their full names; reviewed, and empty for as long as possible.
const MAY_BE_IGNORED: &[&str] = &[];

/// The tests that need Postgres, as packages and their test targets: what is run on a second version, too.
const OF_POSTGRES: &[(&str, &str)] = &[
    ("ingest-api", "api"),
    ("migrate", "migrate"),
    ("stats-notifier", "notifier"),
    ("local-stack", "stack"),
];

/// Checks, then tests; `arguments` go to `cargo test`.
pub(crate) async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let started = Instant::now();
    // dashboard has the page within it.
    page::build().await?;
    step("formatting", cargo(&["fmt", "--all", "--check"])).await?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    step("lints", cargo(&clippy)).await?;
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", documentation).await?;
    // The services too, for the tests that run them as processes of their own.
    step("building the services", cargo(&up::BUILD)).await?;
    step("building the tests", cargo(&["test", "--workspace", "--locked", "--no-run"])).await?;

    examples::bring().await?;
    println!("== Postgres for the tests");
    let installation = postgres::bring()?;
    // Not under the checkout: as root, Postgres runs as another user, who may not be able to enter it.
    let folder = std::env::temp_dir().join(format!("newcycle-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let tested = tokio::select! {
        tested = on_all_versions(installation, &folder, arguments) => tested,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    println!("== all passed on {} in {} s", tested?, started.elapsed().as_secs());
    Ok(())
}

/// Tests everything on the Postgres of this machine, and on one of another major version what that may change. Returns
/// which these were.
async fn on_all_versions(
    installation: Installation,
    folder: &Path,
    arguments: &[String],
) -> anyhow::Result<String> {
    let mut installations = vec![installation];
    match postgres::bring_another(&installations[0], &folder.join("another")) {
        Ok(another) => installations.push(another),
        Err(error) if std::env::var_os("CI").is_some_and(|value| value == "true") => {
            return Err(error.context("there is no second version of Postgres to test with"));
        }
        Err(error) => {
            println!("== SKIPPED: tests on a second version of Postgres, for there is none: {error:#}");
        }
    }
    let mut tested = Vec::new();
    for place in 0..installations.len() {
        // The tests learn of all, first of the one whose turn it is.
        installations.rotate_left(place.min(1));
        let installation = &installations[0];
        let name = format!("Postgres {}", installation.version());
        if place > 0 && !arguments.is_empty() {
            println!("== {name}: skipped, for only some tests were asked for");
            continue;
        }
        let settings = postgres::test_cluster(folder.join(place.to_string()))?;
        let cluster = Cluster::start(installation, &settings)?;
        let connection = format!("host=127.0.0.1 port={} user=postgres password=test", settings.port);
        local_stack::test_database::prepare_template(&connection).await?;
        let variables = Variables {
            connection,
            installations: std::env::join_paths(installations.iter().map(Installation::programs))?,
        };
        if place == 0 {
            test(&cluster, &settings, &variables, arguments).await?;
        } else {
            test_again(&name, &variables).await?;
            chaos::test_again(installation).await?;
        }
        tested.push(name);
    }
    Ok(tested.join(" and "))
}

/// What the tests are told.
struct Variables {
    connection: String,
    installations: OsString,
}

impl Variables {
    fn give(&self, command: &mut Command) {
        command.env(CLUSTER_VARIABLE, &self.connection).env(INSTALLATIONS_VARIABLE, &self.installations);
    }
}

/// Runs the [tests that need Postgres](OF_POSTGRES) on another version. They are built already; asked by package, cargo
/// would build them anew with other features. Most of them wait more than they work, so there are more at a time than
/// cores.
async fn test_again(version: &str, variables: &Variables) -> anyhow::Result<()> {
    let mut list = cargo(&["test", "--workspace", "--locked", "--no-run", "--message-format=json"]);
    let listed = list.output().await.context("listing the test programs")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let built: Vec<Built> = listed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for (package, target) in OF_POSTGRES {
        let built = built.iter().find(|built| built.is(package, target));
        let built = built.with_context(|| format!("{package} has no tests named {target}"))?;
        let mut tests = Command::new(&built.executable);
        tests.current_dir(built.manifest_path.parent().unwrap_or(Path::new("."))).kill_on_drop(true);
        tests.env("RUST_TEST_THREADS", (2 * cores).to_string());
        variables.give(&mut tests);
        step(&format!("tests of {package} on {version}"), tests).await?;
    }
    Ok(())
}

/// What cargo tells of each program that it has built
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>).
#[derive(serde::Deserialize)]
struct Built {
    manifest_path: PathBuf,
    executable: PathBuf,
    target: Target,
}

#[derive(serde::Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Built {
    fn is(&self, package: &str, target: &str) -> bool {
        let folder = self.manifest_path.parent().and_then(Path::file_name);
        folder.is_some_and(|folder| folder == package)
            && self.target.name == target
            && self.target.kind == ["test"]
    }
}

async fn test(
    cluster: &Cluster,
    settings: &ClusterSettings,
    variables: &Variables,
    arguments: &[String],
) -> anyhow::Result<()> {
    let mut ignored =
        cargo(&["test", "--workspace", "--locked", "--", "--ignored", "--list", "--format=terse"]);
    let listed = ignored.output().await.context("listing ignored tests")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let unreviewed: Vec<&str> = names.filter(|name| !MAY_BE_IGNORED.contains(name)).collect();
    if !unreviewed.is_empty() {
        bail!("these tests are ignored without being on the reviewed list: {}", unreviewed.join(", "));
    }
    let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.args(arguments);
    variables.give(&mut tests);
    step("tests", tests).await?;
    if !arguments.is_empty() {
        println!(
            "== API contract, tests of the dashboard's page: skipped, for only some tests were asked for"
        );
        return Ok(());
    }
    contract::run(settings, 0).await?;
    page::test().await?;
    page::test_in_browser(cluster, settings).await?;
    chaos::test().await
}

pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).kill_on_drop(true);
    command
}

/// Runs a command that must succeed, under its name.
pub(crate) async fn step(name: &str, mut command: Command) -> anyhow::Result<()> {
    println!("== {name}");
    let status = command.status().await.with_context(|| format!("{name} could not be run"))?;
    if !status.success() {
        bail!("{name} failed; see above");
    }
    Ok(())
}
