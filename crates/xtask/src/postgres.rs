//! Brings a Postgres where there is none, as far as this machine allows.

use anyhow::Context;
use local_stack::postgres::{Cluster, ClusterSettings, Installation, PostgresError, free_port};

use crate::packages;

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

/// Does `work` with a cluster of its own, the settings of that and a superuser's connection to it; its data are gone
/// afterwards.
///
/// # Errors
/// There is no Postgres, it does not start, or the work fails.
pub(crate) async fn with_cluster(
    work: impl AsyncFnOnce(&Cluster, &ClusterSettings, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    println!("== Postgres for the tests");
    let installation = bring()?;
    // Not under the checkout: as root, Postgres runs as another user, who may not be able to enter it.
    let folder = std::env::temp_dir().join(format!("newcycle-test-{}", std::process::id()));
    let port = free_port()?;
    let settings = ClusterSettings {
        folder: folder.clone(),
        port,
        user: "postgres".to_owned(),
        password: "test".to_owned(),
        durable: false,
        parameters: Vec::new(),
    };
    let outcome = {
        let cluster = Cluster::start(&installation, &settings)?;
        let connection = format!("host=127.0.0.1 port={port} user=postgres password=test");
        tokio::select! {
            outcome = work(&cluster, &settings, &connection) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    };
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    outcome
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
