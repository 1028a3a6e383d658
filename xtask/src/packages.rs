//! Installs packages, where that is possible from here: on Debian and Ubuntu.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Whether [`install`] can work on this machine.
pub(crate) fn can_install() -> bool {
    Path::new("/usr/bin/apt-get").exists()
}

/// Installs packages with apt-get, and says so.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    println!("== installing with apt-get: {}", packages.join(", "));
    as_root(&["apt-get", "update", "-q"])?;
    let install = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
    ];
    as_root(&[&install, packages].concat())
}

/// Root needs no sudo, and may not have it.
pub(crate) fn as_root(words: &[&str]) -> anyhow::Result<()> {
    let words =
        if rustix::process::geteuid().is_root() { words.to_vec() } else { [&["sudo"], words].concat() };
    let status = Command::new(words[0]).args(&words[1..]).status();
    let failed = || format!("`{}` failed", words.join(" "));
    if !status.with_context(failed)?.success() {
        bail!(failed());
    }
    Ok(())
}
