//! The Postgres of this machine, installed if missing, and clusters that last as long as a command.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::Context;
use local_stack::ports::reserve_port;
use local_stack::postgres::{Cluster, ClusterSettings, Installation, PostgresError};
use local_stack::test_database::{CLUSTER_VARIABLE, INSTALLATIONS_VARIABLE, prepare_template};

use crate::install::{Installer, as_root};

/// Keeps Debian's package from making a cluster, which would take port 5432 and start with the
/// machine.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/newcycle.conf";

/// The Postgres of this machine. Installs one on Debian and Ubuntu if there is none.
///
/// # Errors
/// There is none, and none can be installed; the message says what to do.
pub(crate) fn ensure(installer: Installer) -> anyhow::Result<Installation> {
    match Installation::find() {
        Err(PostgresError::NotFound) if Path::new("/usr/bin/apt-get").exists() => {
            install(installer)?;
            Ok(Installation::find()?)
        }
        found => Ok(found?),
    }
}

fn install(installer: Installer) -> anyhow::Result<()> {
    installer.check_allowed("Postgres 15 or newer")?;
    let write = format!(
        "mkdir -p \"$(dirname {NO_CLUSTER})\" && echo 'create_main_cluster = false' > {NO_CLUSTER}"
    );
    as_root(&["sh", "-c", &write])?;
    let installed = installer.packages(&["postgresql"]);
    // Packages that are installed later by other means behave as usual.
    as_root(&["rm", "-f", NO_CLUSTER])?;
    installed
        .context("Postgres 15 or newer could not be installed: install it yourself, then try again")
}

/// Runs `work` with a new cluster, and removes the cluster's folder afterwards.
pub(crate) async fn with_cluster<T>(
    installation: &Installation,
    settings: &ClusterSettings,
    work: impl AsyncFnOnce(&Cluster) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    println!("== starting Postgres {}", installation.version());
    let outcome = {
        let cluster = Cluster::start(installation, settings)?;
        tokio::select! {
            outcome = work(&cluster) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    };
    std::fs::remove_dir_all(&settings.folder)
        .with_context(|| format!("removing {}", settings.folder.display()))?;
    outcome
}

/// A new folder that no other process uses. It is not in the checkout: as root, Postgres runs as
/// another user, who may not be able to enter that.
pub(crate) fn temporary_folder(purpose: &str) -> anyhow::Result<PathBuf> {
    let name = format!("newcycle-{purpose}-{:016x}", rand::random::<u64>());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// A cluster in a temporary folder, whose data need not survive a crash of the machine.
pub(crate) fn temporary_cluster(purpose: &str) -> anyhow::Result<ClusterSettings> {
    Ok(ClusterSettings {
        folder: temporary_folder(purpose)?,
        port: reserve_port()?,
        user: "postgres".to_owned(),
        password: "test".to_owned(),
        durable: false,
        parameters: Vec::new(),
    })
}

/// The address of a cluster, for a superuser.
pub(crate) fn connection(cluster: &ClusterSettings) -> String {
    let ClusterSettings { port, user, password, .. } = cluster;
    format!("host=127.0.0.1 port={port} user={user} password={password}")
}

/// Makes the template of the test databases, and returns the variables of a run of tests: where the
/// cluster is, and how many tests run at once. `installations` are the versions that tests may use,
/// the cluster's first.
pub(crate) async fn prepare_tests(
    cluster: &ClusterSettings,
    installations: &[&Installation],
) -> anyhow::Result<[(&'static str, OsString); 3]> {
    let connection = connection(cluster);
    prepare_template(&connection).await?;
    let programs = installations.iter().map(|installation| installation.programs());
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Ok([
        // Most tests wait more than they work.
        ("RUST_TEST_THREADS", (2 * cores).to_string().into()),
        (CLUSTER_VARIABLE, connection.into()),
        (INSTALLATIONS_VARIABLE, std::env::join_paths(programs)?),
    ])
}
