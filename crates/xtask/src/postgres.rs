//! Brings a Postgres where there is none, as far as this machine allows.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use local_stack::postgres::{Installation, PostgresError};

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
    println!("There is no Postgres here: installing Debian's package postgresql with apt-get.");
    for arguments in
        [&["update", "-q"][..], &["install", "-y", "-q", "--no-install-recommends", "postgresql"]]
    {
        // Root needs no sudo, and may not have it.
        let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.arg("apt-get");
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        let status = command.status().context("apt-get could not be run")?;
        if !status.success() {
            bail!("apt-get {} failed; install Postgres 15 or newer by hand, then try again", arguments[0]);
        }
    }
    Ok(())
}
