//! Python environments under `target/`, with what the lists in `python/` pin.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use local_stack::stack::built_programs;

use crate::packages;

/// What an environment has.
pub(crate) struct Requirements {
    /// The name of the environment's folder.
    pub(crate) name: &'static str,
    /// The list, in the form of pip: all that is needed, each at one version.
    pub(crate) list: &'static str,
}

/// What puts the API contract to the test.
pub(crate) const CONTRACT: Requirements =
    Requirements { name: "python", list: include_str!("../python/requirements.txt") };

/// The Pythons that are tried: that of the path, and that of Debian's packages.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// The folder of an environment's programs. The environment is made on the first call, and anew once the
/// requirements are others.
pub(crate) fn environment(requirements: &Requirements) -> anyhow::Result<PathBuf> {
    let Requirements { name, list } = requirements;
    let programs = built_programs()?;
    let folder = programs.parent().unwrap_or(&programs).join(name);
    let installed = folder.join("requirements.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == *list) {
        return Ok(folder.join("bin"));
    }
    println!("== installing Python packages into {}", folder.display());
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", folder.display()));
        }
        _ => {}
    }
    run(Command::new(python()?).args(["-m", "venv"]).arg(&folder))?;
    let to_install = folder.join("to-install.txt");
    std::fs::write(&to_install, list).with_context(|| format!("writing {}", to_install.display()))?;
    let pip = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"];
    run(Command::new(folder.join("bin/pip")).args(pip).arg(&to_install))?;
    // Under this name only now: an installation that was interrupted is begun anew.
    std::fs::rename(&to_install, &installed).with_context(|| format!("renaming {}", to_install.display()))?;
    Ok(folder.join("bin"))
}

/// A Python that can make environments; installed first on Debian and Ubuntu where there is none.
fn python() -> anyhow::Result<&'static Path> {
    if let Some(python) = find() {
        return Ok(python);
    }
    if packages::can_install() {
        println!("== there is no Python 3.10 or newer with venv here");
        packages::install(&["python3-venv"])?;
    }
    match find() {
        Some(python) => Ok(python),
        None => bail!("there is no Python 3.10 or newer with the modules venv and ensurepip: install one"),
    }
}

fn find() -> Option<&'static Path> {
    let able = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))";
    let found = PYTHONS.into_iter().find(|python| {
        let asked = Command::new(python).args(["-c", able]).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    });
    found.map(Path::new)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let failed = || format!("{} failed", command.get_program().display());
    let context = failed();
    if !command.status().with_context(|| context.clone())?.success() {
        bail!("{context}; see above");
    }
    Ok(())
}
