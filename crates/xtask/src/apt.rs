//! Packages of Debian and Ubuntu.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Whether packages can be installed here.
pub(crate) fn is_there() -> bool {
    Path::new("/usr/bin/apt-get").exists()
}

/// Installs a package, and what it needs.
pub(crate) fn install(package: &str) -> anyhow::Result<()> {
    as_root(&["apt-get", "update", "-q"])?;
    let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q"];
    as_root(&[&words[..], &["--no-install-recommends", package]].concat())
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
