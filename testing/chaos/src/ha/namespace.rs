//! The namespaces that a run lives in.
//!
//! Invariant: no process, network or mount of a run outlives it, however it ends; a folder with its
//! logs may. The run is the first process
//! of a process namespace: when it ends, the kernel ends all others, and with them the network
//! namespaces, bridges and mounts, which no other process can see. So two runs never meet, and a
//! run that was killed leaves nothing for the next one to stumble over.

use std::ffi::OsString;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// Who the run is to the machine: root, or a user who is root in a user namespace only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Privilege {
    /// Root of the machine, or of a container that may make namespaces.
    Root,
    /// Any other user.
    User,
}

/// The namespaces of a run, as options of unshare(1). `--kill-child` ends the run if unshare is
/// killed.
const NAMESPACES: [&str; 7] =
    ["--net", "--pid", "--ipc", "--mount", "--mount-proc", "--fork", "--kill-child"];

/// The further options of a user who is not root.
const USER_NAMESPACE: [&str; 2] = ["--user", "--map-root-user"];

impl Privilege {
    fn options(self) -> Vec<&'static str> {
        match self {
            Self::Root => NAMESPACES.to_vec(),
            Self::User => [&USER_NAMESPACE[..], &NAMESPACES].concat(),
        }
    }

    /// The privilege of this process.
    fn own() -> Self {
        if rustix::process::geteuid().is_root() { Self::Root } else { Self::User }
    }
}

/// Replaces this process by the same program in namespaces of its own, with `--inside`.
///
/// # Errors
/// This machine does not permit namespaces; the message says what to do.
pub fn enter() -> anyhow::Error {
    match try_to_enter() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Whether this machine permits the namespaces.
///
/// # Errors
/// It does not; the message says what to do.
pub fn check() -> anyhow::Result<()> {
    let options = Privilege::own().options();
    let tried = Command::new("unshare").args(options).arg("true").output();
    let tried = tried.context("running unshare, of Debian's package util-linux")?;
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr);
        bail!(
            "this machine does not permit the namespaces that the nodes live in ({}): run this as root, in a \
             container with --privileged, or permit namespaces for users (sysctl \
             kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu)",
            why.trim()
        );
    }
    Ok(())
}

fn try_to_enter() -> anyhow::Result<std::convert::Infallible> {
    check()?;
    let privilege = Privilege::own();
    let program = std::env::current_exe().context("finding the path of this program")?;
    let inside = match privilege {
        Privilege::Root => "root",
        Privilege::User => "user",
    };
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    arguments.extend(["--inside".into(), inside.into()]);
    Err(Command::new("unshare")
        .args(privilege.options())
        .arg(program)
        .args(arguments)
        .exec()
        .into())
}

/// Prepares the namespaces that this process is in.
///
/// # Errors
/// The process is not in namespaces of its own, or the system refuses a step.
pub(super) fn prepare() -> anyhow::Result<()> {
    ensure!(std::process::id() == 1, "--inside is for the program itself, in its namespaces");
    run("ip", &["link", "set", "lo", "up"])?;
    // Servers that are killed leave their shared memory behind.
    run("mount", &["-t", "tmpfs", "newcycle-ha", "/dev/shm"])
}

/// The user that Postgres, Patroni and etcd run as, because Postgres refuses to run as root.
#[derive(Debug, Clone)]
pub(super) struct Unprivileged {
    user: u32,
    group: u32,
    privilege: Privilege,
}

impl Unprivileged {
    /// The user that Debian's package has made for Postgres.
    pub(super) fn find(privilege: Privilege) -> anyhow::Result<Self> {
        let id = |option: &str| {
            let output = Command::new("id").args([option, "postgres"]).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.trim().parse().context("there is no user named postgres: install postgresql")
        };
        Ok(Self { user: id("-u")?, group: id("-g")?, privilege })
    }

    /// The words in front of a command that make this user run it. In a user namespace no other
    /// user exists, so the same one gets another number there.
    pub(super) fn words(&self) -> Vec<String> {
        let Self { user, group, privilege } = self;
        match privilege {
            Privilege::Root => vec![
                "setpriv".to_owned(),
                format!("--reuid={user}"),
                format!("--regid={group}"),
                "--clear-groups".to_owned(),
            ],
            Privilege::User => vec![
                "unshare".to_owned(),
                "--user".to_owned(),
                format!("--map-user={user}"),
                format!("--map-group={group}"),
            ],
        }
    }

    /// A command that this user runs.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program.as_ref()).current_dir("/");
        command
    }

    /// Makes this user the owner of a file or folder.
    pub(super) fn own(&self, path: &Path) -> anyhow::Result<()> {
        if self.privilege == Privilege::User {
            return Ok(());
        }
        chown(path, Some(self.user), Some(self.group))
            .with_context(|| format!("giving away {}", path.display()))
    }
}

/// Runs a command that must succeed.
pub(super) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    succeed(Command::new(program).args(arguments)).map(drop)
}

/// Runs a command that must succeed, and returns what it printed.
pub(super) fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}", why.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
