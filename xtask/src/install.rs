//! Installs Debian packages, and says so first.
//!
//! Invariant: nothing is installed on the machine outside the checkout without a line that names
//! it, and nothing at all with `--no-install`. Python and npm packages are no installation in this
//! sense: they stay below `target/` and `node_modules/`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

const APT_GET: &str = "/usr/bin/apt-get";

/// Decides whether a package may start its service (Debian's invoke-rc.d).
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing on this machine, unless the developer refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Installer {
    /// Whether `--no-install` was given.
    pub(crate) is_refused: bool,
}

impl Installer {
    /// Fails if the developer refuses installations.
    ///
    /// # Errors
    /// `--no-install` was given; the message names what is missing.
    pub(crate) fn check_allowed(self, what: &str) -> anyhow::Result<()> {
        if self.is_refused {
            bail!(
                "{what} is missing, and --no-install is set: install it yourself, then try again"
            );
        }
        Ok(())
    }

    /// Installs packages with apt-get. Elsewhere than on Debian and Ubuntu it only names what is
    /// missing.
    pub(crate) fn packages(self, packages: &[&str]) -> anyhow::Result<()> {
        let names = packages.join(" ");
        if !Path::new(APT_GET).exists() {
            bail!("{names} is missing: install it yourself, then try again");
        }
        self.check_allowed(&names)?;
        println!("== installing Debian packages: {names} (refuse with --no-install)");
        as_root(&["apt-get", "update", "-q"])?;
        let environment = ["env", "DEBIAN_FRONTEND=noninteractive"];
        let install = ["apt-get", "install", "-y", "-q", "--no-install-recommends"];
        as_root(&[&environment, &install[..], packages].concat())
    }

    /// Installs a package with a server that tests start themselves. The package's own service does
    /// not start, now or with the machine.
    pub(crate) fn package_without_service(self, package: &str) -> anyhow::Result<()> {
        self.check_allowed(package)?;
        if !Path::new(APT_GET).exists() {
            return self.packages(&[package]);
        }
        // Debian's way to keep packages from starting services. A file that exists has the same
        // purpose, and stays.
        let refuse = r#"test -e "$0" || {
            printf '#!/bin/sh\nexit 101\n' > "$0" && chmod 755 "$0" && touch "$0.newcycle"
        }"#;
        let allow = r#"if test -e "$0.newcycle"; then rm -f "$0" "$0.newcycle"; fi"#;
        as_root(&["sh", "-c", refuse, SERVICE_POLICY])?;
        let installed = self.packages(&[package]);
        as_root(&["sh", "-c", allow, SERVICE_POLICY])?;
        installed?;
        as_root(&["update-rc.d", package, "disable"])
    }

    /// Installs the package of each program that is not on PATH.
    pub(crate) fn programs(self, needed: &[(&str, &'static str)]) -> anyhow::Result<()> {
        let missing = needed.iter().filter(|(program, _)| find_program(program).is_none());
        let missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
        if missing.is_empty() { Ok(()) } else { self.packages(&missing) }
    }
}

/// A program on PATH, or at an absolute path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Joining a folder with an absolute path gives the absolute path.
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Runs a command as root: with sudo, unless this process is root already.
pub(crate) fn as_root(words: &[&str]) -> anyhow::Result<()> {
    let sudo: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["sudo"] };
    let words = [sudo, words].concat();
    run(Command::new(words[0]).args(&words[1..]))
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    let words = words.join(" ");
    let status = command.status().with_context(|| format!("`{words}` could not be run"))?;
    if !status.success() {
        bail!("`{words}` failed; see above");
    }
    Ok(())
}
