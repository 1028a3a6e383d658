//! Brings a Postgres where there is none, as far as this machine allows.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use local_stack::postgres::{Installation, PostgresError};

/// Tells Debian's package to make no cluster of its own, which would take port 5432 and start with the machine.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/newcycle.conf";

/// The Postgres of this machine, installed first on Debian and Ubuntu where there is none.
///
/// # Errors
/// There is none, and it cannot be installed from here; the message says what to do.
pub(crate) fn bring() -> anyhow::Result<Installation> {
    match Installation::find() {
        Err(PostgresError::NotFound) if Path::new("/usr/bin/apt-get").exists() => install()?,
        found => return Ok(found?),
    }
    Ok(Installation::find()?)
}

fn install() -> anyhow::Result<()> {
    println!("== there is no Postgres 15 or newer here: installing the package postgresql with apt-get");
    let write =
        format!("mkdir -p \"$(dirname {NO_CLUSTER})\" && echo 'create_main_cluster = false' > {NO_CLUSTER}");
    as_root(&["sh", "-c", &write])?;
    let installed = as_root(&["apt-get", "update", "-q"]).and_then(|()| {
        as_root(&[
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
            "postgresql",
        ])
    });
    // What is installed later, by others, is none of this command's business.
    as_root(&["rm", "-f", NO_CLUSTER])?;
    installed.context("install Postgres 15 or newer by hand, then try again")
}

/// Root needs no sudo, and may not have it.
fn as_root(words: &[&str]) -> anyhow::Result<()> {
    let words =
        if rustix::process::geteuid().is_root() { words.to_vec() } else { [&["sudo"], words].concat() };
    let status = Command::new(words[0]).args(&words[1..]).status();
    let failed = || format!("`{}` failed", words.join(" "));
    if !status.with_context(failed)?.success() {
        bail!(failed());
    }
    Ok(())
}
