//! Brings a Postgres where there is none, as far as this machine allows.

use anyhow::Context;
use local_stack::postgres::{Installation, PostgresError};

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
