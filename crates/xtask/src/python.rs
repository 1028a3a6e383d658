//! A Python environment under `target/`, with what `python/requirements.txt` pins.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use local_stack::stack::built_programs;

use crate::packages;

const REQUIREMENTS: &str = include_str!("../python/requirements.txt");

/// The Pythons that are tried: that of the path, and that of Debian's packages.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// The folder of the environment's programs. The environment is made on the first call, and anew once the
/// requirements are others.
pub(crate) fn environment() -> anyhow::Result<PathBuf> {
    let programs = built_programs()?;
    let folder = programs.parent().unwrap_or(&programs).join("python");
    let installed = folder.join("requirements.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|requirements| requirements == REQUIREMENTS) {
        return Ok(folder.join("bin"));
    }
    println!("== installing what python/requirements.txt pins into {}", folder.display());
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", folder.display()));
        }
        _ => {}
    }
    run(Command::new(python()?).args(["-m", "venv"]).arg(&folder))?;
    let list = folder.join("to-install.txt");
    std::fs::write(&list, REQUIREMENTS).with_context(|| format!("writing {}", list.display()))?;
    let pip = ["install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(folder.join("bin/pip")).args(pip).arg(&list))?;
    // Under this name only now: an installation that was interrupted is begun anew.
    std::fs::rename(&list, &installed).with_context(|| format!("renaming {}", list.display()))?;
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
