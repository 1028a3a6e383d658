//! A Postgres of this machine, and clusters made with it.

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use crate::installation::Installation;
use crate::installation::OLDEST;

/// How long a server may take to start, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No Postgres was found.
    #[error(
        "no Postgres {OLDEST} or newer was found on PATH, in /usr/lib/postgresql or in Homebrew's folders: install \
         one (Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17), then try again"
    )]
    NotFound,
    /// A folder has no programs of Postgres, or none that run here.
    #[error("{} has no Postgres {OLDEST} or newer that runs on this machine", .0.display())]
    NotThere(PathBuf),
    /// As root, there must be another user to run Postgres as.
    #[error("Postgres refuses to run as root, and there is no user named postgres to run it as: create one")]
    NoUser,
    /// A program could not be run, or a folder not be made.
    #[error("{doing}: {source}")]
    Io {
        /// What was attempted.
        doing: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// A program of Postgres failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it wrote.
        output: String,
    },
    /// Processes of an earlier server are left over.
    #[error("processes of an earlier server of this folder still run: end them, then try again")]
    EarlierServer,
    /// The server did not start in time, or ended.
    #[error("Postgres did not start; the end of its log:\n{0}")]
    NotStarted(String),
}

pub(crate) fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> PostgresError {
    let doing = doing.into();
    move |source| PostgresError::Io { doing, source }
}

/// Another user to run Postgres as, where this process runs as root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A running cluster. It is stopped when dropped; its data stay.
#[derive(Debug)]
pub struct Cluster {
    server: Child,
    port: u16,
    folder: PathBuf,
}

/// How a server is stopped (<https://www.postgresql.org/docs/current/server-shutdown.html>). It keeps what was committed
/// in any of these ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// "Fast": clients are sent away, and what is in memory is written down.
    Fast,
    /// "Immediate": nothing is written down; the next start recovers.
    Immediate,
    /// The first of its processes is killed; the others notice and end by themselves, which the next start waits for.
    Kill,
}

/// How a cluster is made and run.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Where its data and its log go; made where it is missing.
    pub folder: PathBuf,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The superuser.
    pub user: String,
    /// The superuser's password.
    pub password: String,
    /// Whether commits survive a crash of the machine. A test's need not.
    pub durable: bool,
    /// Further parameters of the server, as `name=value`; they win over the ones above.
    pub parameters: Vec<String>,
}

impl ClusterSettings {
    /// The folder of its data: what the programs of Postgres call the data directory. A cluster whose data are there is not
    /// made anew.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Makes the folder where it is missing, and returns whose it is, where that is another user than this process's.
    pub(crate) fn make_folder(&self) -> Result<Option<User>, PostgresError> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder).map_err(io_error(format!("making {}", folder.display())))?;
        let user = other_user(folder)?;
        if let Some(User { uid, gid }) = user {
            chown(folder, Some(uid), Some(gid))
                .map_err(io_error(format!("giving away {}", folder.display())))?;
        }
        Ok(user)
    }
}

impl Cluster {
    /// Starts the cluster of a folder, which is made first where there is none.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub fn start(installation: &Installation, settings: &ClusterSettings) -> Result<Self, PostgresError> {
        let user = settings.make_folder()?;
        let data = settings.data();
        if !data.join("PG_VERSION").exists() {
            initialise(installation, settings, user, &data)?;
        }
        // What is left of a server that was killed may take a moment to end, and keeps its memory until then.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::launch(installation, settings, user, &data) {
                Err(PostgresError::EarlierServer) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                outcome => return outcome,
            }
        }
    }

    fn launch(
        installation: &Installation,
        settings: &ClusterSettings,
        user: Option<User>,
        data: &Path,
    ) -> Result<Self, PostgresError> {
        let folder = &settings.folder;
        let log = folder.join("postgres.log");
        // Appended to, for processes of an earlier server may still write to it while they end.
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let output = output.map_err(io_error(format!("making {}", log.display())))?;
        output.set_len(0).map_err(io_error(format!("emptying {}", log.display())))?;
        let errors = output.try_clone().map_err(io_error("sharing the log"))?;
        let mut server = installation.command("postgres", user);
        // A group of its own: a Ctrl-C at the terminal is for whoever started it, who then stops it in order.
        server.arg("-D").arg(data).stdout(output).stderr(errors).process_group(0);
        let mut options = vec![
            format!("port={}", settings.port),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "max_connections=300".to_owned(),
            "max_prepared_transactions=20".to_owned(),
        ];
        if !settings.durable {
            options
                .extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
        }
        for option in options.iter().chain(&settings.parameters) {
            server.arg("-c").arg(option);
        }
        let server = server.spawn().map_err(io_error("starting postgres"))?;
        let mut cluster = Self { server, port: settings.port, folder: folder.clone() };
        cluster.wait_until_ready(installation, settings)?;
        Ok(cluster)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }

    /// Whether the server still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.server.try_wait(), Ok(None))
    }

    /// Stops the server: clients are sent away, and what they had committed is kept.
    pub fn stop(&mut self) {
        self.stop_in(Stop::Fast);
    }

    /// Stops the server in one of Postgres's ways.
    pub fn stop_in(&mut self, way: Stop) {
        let deadline = Instant::now() + PATIENCE;
        let signal = match way {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        };
        let asked = i32::try_from(self.server.id())
            .ok()
            .and_then(Pid::from_raw)
            .is_some_and(|process| kill_process(process, signal).is_ok());
        while asked && Instant::now() < deadline {
            if !self.runs() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // A server that does not stop recovers from its log the next time.
        let _already_ended = self.server.kill();
        let _already_ended = self.server.wait();
    }

    fn wait_until_ready(
        &mut self,
        installation: &Installation,
        settings: &ClusterSettings,
    ) -> Result<(), PostgresError> {
        let deadline = Instant::now() + PATIENCE;
        let port = settings.port.to_string();
        while Instant::now() < deadline && self.runs() {
            let mut ready = installation.command("pg_isready", None);
            ready.args(["-q", "-h", "127.0.0.1", "-p", &port]);
            if ready.status().map_err(io_error("running pg_isready"))?.success() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = std::fs::read_to_string(self.folder.join("postgres.log")).unwrap_or_default();
        if log.contains("pre-existing shared memory block") {
            return Err(PostgresError::EarlierServer);
        }
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        Err(PostgresError::NotStarted(lines.into_iter().rev().collect::<Vec<_>>().join("\n")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn initialise(
    installation: &Installation,
    settings: &ClusterSettings,
    user: Option<User>,
    data: &Path,
) -> Result<(), PostgresError> {
    // A half-made one of an attempt that was interrupted.
    if data.exists() {
        std::fs::remove_dir_all(data).map_err(io_error(format!("removing {}", data.display())))?;
    }
    let secret = settings.folder.join("password");
    std::fs::write(&secret, &settings.password).map_err(io_error("writing the password for initdb"))?;
    if let Some(User { uid, gid }) = user {
        chown(&secret, Some(uid), Some(gid)).map_err(io_error("giving away the password file"))?;
    }
    let mut initdb = installation.command("initdb", user);
    initdb.args(["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--username", &settings.user]);
    initdb.arg("--pwfile").arg(&secret).arg("--pgdata").arg(data);
    if !settings.durable {
        initdb.arg("--no-sync");
    }
    let output = initdb.output().map_err(io_error("running initdb"));
    std::fs::remove_file(&secret).map_err(io_error("removing the password for initdb"))?;
    let output = output?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(PostgresError::Failed { program: "initdb", output })
}

/// Root owns what it makes, so whoever owns a new folder tells who this is.
fn other_user(folder: &Path) -> Result<Option<User>, PostgresError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owner = std::fs::metadata(folder).map_err(io_error("looking at the data folder"))?;
    if owner.uid() != 0 {
        return Ok(Some(User { uid: owner.uid(), gid: owner.gid() }));
    }
    let id = |option: &str| {
        let output = Command::new("id").args([OsStr::new(option), OsStr::new("postgres")]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    match (id("-u"), id("-g")) {
        (Some(uid), Some(gid)) => Ok(Some(User { uid, gid })),
        _ => Err(PostgresError::NoUser),
    }
}

/// A port that nobody listens on just now.
///
/// It is drawn from below those that operating systems give to outgoing connections, so that none of these
/// takes it before it is used.
///
/// # Errors
/// None was found.
pub fn free_port() -> io::Result<u16> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..100 {
        match TcpListener::bind(("127.0.0.1", rand::random_range(10_000..30_000))) {
            Ok(listener) => return Ok(listener.local_addr()?.port()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
