//! Installs Debian packages, and says so first.
//!
//! Invariant: nothing is installed on the machine outside the checkout without a line that names
//! it, and nothing at all with `--no-install`. Python and npm packages are no installation in this
//! sense: they stay below `target/` and `node_modules/`.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, bail};

/// Whether `--no-install` was given. A static, because it applies to the whole process.
static REFUSED: OnceLock<bool> = OnceLock::new();

/// Records whether the developer refuses installations.
pub(crate) fn set_refused(refused: bool) {
    let _set_once = REFUSED.set(refused);
}

/// Whether the developer refuses installations.
pub(crate) fn is_refused() -> bool {
    REFUSED.get().copied().unwrap_or_default()
}

/// Fails if the developer refuses installations.
///
/// # Errors
/// `--no-install` was given; the message names what is missing.
pub(crate) fn check_allowed(what: &str) -> anyhow::Result<()> {
    if is_refused() {
        bail!("{what} is missing, and --no-install is set: install it yourself, then try again");
    }
    Ok(())
}

/// Installs packages with apt-get. Elsewhere than on Debian and Ubuntu it only names what is
/// missing.
///
/// # Errors
/// Installations are refused, impossible here, or fail.
pub(crate) fn packages(packages: &[&str]) -> anyhow::Result<()> {
    let names = packages.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("{names} is missing: install it yourself, then try again");
    }
    check_allowed(&names)?;
    println!("== installing Debian packages: {names} (refuse with --no-install)");
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

/// Installs the package of each program that is not on PATH.
///
/// # Errors
/// As [`packages`].
pub(crate) fn programs(needed: &[(&str, &'static str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| !is_on_path(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() { Ok(()) } else { packages(&missing) }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs a command as root: with sudo, unless this process is root already.
///
/// # Errors
/// The command cannot be run, or fails.
pub(crate) fn as_root(words: &[&str]) -> anyhow::Result<()> {
    let words = if rustix::process::geteuid().is_root() {
        words.to_vec()
    } else {
        [&["sudo"], words].concat()
    };
    let status = Command::new(words[0]).args(&words[1..]).status();
    let failed = || format!("`{}` failed", words.join(" "));
    if !status.with_context(failed)?.success() {
        bail!(failed());
    }
    Ok(())
}
