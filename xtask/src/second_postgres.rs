//! The tests that need Postgres, on a second major version.

use std::path::{Path, PathBuf};

use anyhow::Context;
use local_stack::postgres::Installation;
use serde::Deserialize;
use tokio::process::Command;

use crate::command::{cargo, step};
use crate::test_cluster::TestCluster;
use crate::{chaos, postgres};

/// The test programs that need Postgres, as packages and their test targets.
const TESTS: [(&str, &str); 4] = [
    ("ingest-api", "api"),
    ("migrate", "migrate"),
    ("stats-notifier", "notifier"),
    ("local-stack", "stack"),
];

/// Runs them on the newest version that is not `first`'s, then a short chaos run. Skips all of it
/// if there is no such version for this machine, except in continuous integration.
///
/// # Errors
/// A test fails.
pub(crate) async fn test(first: &Installation) -> anyhow::Result<()> {
    let folder = postgres::temporary_folder("second-postgres")?;
    let outcome = match postgres::ensure_second(first, &folder) {
        Ok(second) => {
            let tested = postgres::with_cluster(&second, async |_, settings| {
                let cluster = TestCluster::prepare(settings, &[&second, first]).await?;
                run(&format!("Postgres {}", second.version()), &cluster).await
            });
            match tested.await {
                Ok(()) => chaos::test_on(&second).await,
                Err(error) => Err(error),
            }
        }
        Err(error) if is_continuous_integration() => {
            Err(error.context("there is no second version of Postgres to test with"))
        }
        Err(error) => {
            println!(
                "== SKIPPED: tests on a second version of Postgres, because there is none: {error:#}"
            );
            Ok(())
        }
    };
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    outcome
}

/// What a developer's machine may lack is an error in continuous integration.
fn is_continuous_integration() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Runs the built test programs directly: `cargo test -p` would build them again with other
/// features.
async fn run(version: &str, cluster: &TestCluster) -> anyhow::Result<()> {
    let mut list = cargo(&["test", "--workspace", "--locked", "--no-run", "--message-format=json"]);
    let listed = list.output().await.context("listing the test programs")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let built: Vec<Built> =
        listed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for (package, target) in TESTS {
        let built = built.iter().find(|built| built.is(package, target));
        let built = built.with_context(|| format!("{package} has no tests named {target}"))?;
        let mut tests = Command::new(&built.executable);
        tests
            .current_dir(built.manifest_path.parent().unwrap_or(Path::new(".")))
            .kill_on_drop(true);
        // Most of them wait more than they work.
        tests.env("RUST_TEST_THREADS", (2 * cores).to_string());
        cluster.pass_to(&mut tests);
        step(&format!("tests of {package} on {version}"), tests).await?;
    }
    Ok(())
}

/// One of cargo's messages about a built program
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>).
#[derive(Deserialize)]
struct Built {
    manifest_path: PathBuf,
    executable: PathBuf,
    target: Target,
}

#[derive(Deserialize)]
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
