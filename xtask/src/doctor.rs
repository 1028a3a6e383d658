//! `cargo xtask doctor`: what is missing on this machine, which commands need it, and how to get
//! it. Installs nothing.
//!
//! The other commands find their programs by the same functions, and install Debian packages
//! themselves; this is for other systems, and for machines on which they may not.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use local_stack::path::find_program;
use local_stack::postgres::Installation;

use crate::{browser, ha, python};

/// The commands that need something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// `up`, and everything else.
    Always,
    /// `test`.
    Test,
    /// `ci`.
    Ci,
    /// `ha`, and `ci`, which runs a part of it.
    Ha,
    /// Some of the benches.
    Bench,
    /// `release`.
    Release,
    /// `up --with compose`.
    Containers,
}

impl Needed {
    const fn by(self) -> &'static str {
        match self {
            Self::Always => "everything",
            Self::Test => "test, ci",
            Self::Ci => "ci",
            Self::Ha => "ha, ci",
            Self::Bench => "bench",
            Self::Release => "release, ci --long",
            Self::Containers => "up --with compose",
        }
    }
}

/// Something that commands need.
struct Need {
    name: &'static str,
    needed: Needed,
    /// Where it is, or which version; `None` if it is missing.
    found: Option<String>,
    /// How to get it, if the commands do not bring it.
    how: &'static str,
}

/// Lists what is there and what is missing.
///
/// # Errors
/// Something is missing that `up` or `test` needs.
pub(crate) fn run() -> anyhow::Result<()> {
    let needs = needs();
    for Need { name, needed, found, how } in &needs {
        match found {
            Some(found) => println!("ok       {name}: {found}"),
            None => println!("MISSING  {name}, for {}: {how}", needed.by()),
        }
    }
    let is_required = |need: &&Need| matches!(need.needed, Needed::Always | Needed::Test);
    let missing: Vec<_> = needs
        .iter()
        .filter(|need| need.found.is_none())
        .filter(is_required)
        .map(|need| need.name)
        .collect();
    if !missing.is_empty() {
        bail!(
            "{} missing: on Debian and Ubuntu, `up` and `test` install them; elsewhere, see above",
            missing.join(", ")
        );
    }
    println!("== everything is there that `up` and `test` need");
    Ok(())
}

fn needs() -> Vec<Need> {
    let postgres = Installation::find().ok().map(|found| found.version().to_string());
    let display = |found: Option<PathBuf>| found.map(|path| path.display().to_string());
    let program = |name, needed, program, how| Need {
        name,
        needed,
        found: display(find_program(program)),
        how,
    };
    let mut needs = vec![
        Need {
            name: "Postgres 15 or newer, with its server programs",
            needed: Needed::Always,
            found: postgres,
            how: "apt-get install postgresql, or postgresql.org/download",
        },
        Need {
            name: "Python 3.10 or newer, with venv and ensurepip",
            needed: Needed::Test,
            found: python::find().map(str::to_owned),
            how: "apt-get install python3-venv, or python.org",
        },
        program(
            "PgBouncer",
            Needed::Test,
            "pgbouncer",
            "apt-get install pgbouncer, and stop its service; or pgbouncer.org",
        ),
        program(
            "Prometheus",
            Needed::Test,
            "prometheus",
            "apt-get install prometheus, and stop its service; or prometheus.io/download",
        ),
        program("curl", Needed::Test, "curl", "apt-get install curl"),
        program("ps", Needed::Test, "ps", "apt-get install procps"),
        Need {
            name: "Chromium",
            needed: Needed::Ci,
            found: display(browser::chromium()),
            how: "apt-get install chromium-headless-shell, or Chromium, or Google Chrome",
        },
    ];
    needs.extend(browser::OTHERS.iter().map(|other| Need {
        name: other.package,
        needed: Needed::Ci,
        found: display(other.find()),
        how: "apt-get install it; its tests run on Linux only",
    }));
    needs.extend(ha::PROGRAMS.iter().map(|program| Need {
        name: program.package,
        needed: Needed::Ha,
        found: display(program.find()),
        how: "apt-get install it, and stop its service if it has one; failovers run on Linux only",
    }));
    needs.extend([
        program("nginx", Needed::Ci, "nginx", "apt-get install nginx-light"),
        program("Caddy", Needed::Ci, "caddy", "apt-get install caddy, or caddyserver.com"),
        program("wrk", Needed::Ci, "wrk", "apt-get install wrk"),
        program("libfaketime", Needed::Ci, "faketime", "apt-get install faketime"),
        program("promtool", Needed::Ci, "promtool", "apt-get install prometheus"),
        program("objcopy", Needed::Release, "objcopy", "apt-get install binutils"),
        program("gdb", Needed::Release, "gdb", "apt-get install gdb"),
        program("Valgrind", Needed::Bench, "valgrind", "apt-get install valgrind"),
        Need {
            name: "an engine for containers, with Compose",
            needed: Needed::Containers,
            found: compose(),
            how: "Docker Engine with its Compose plugin, docs.docker.com/engine/install",
        },
    ]);
    needs
}

/// The version of Compose, if an engine answers.
fn compose() -> Option<String> {
    find_program("docker")?;
    let output = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).current_dir(Path::new("/")).output();
        let output = output.ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    output(&["version", "--format", "{{.Server.Version}}"])?;
    Some(output(&["compose", "version"])?.trim().to_owned())
}
