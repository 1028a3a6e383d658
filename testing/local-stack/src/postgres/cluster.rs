//! One running Postgres server and its data.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::{PostgresError, io_error};
use super::installation::Installation;
use super::settings::{ClusterSettings, SystemUser};

/// How long a server may take to start, which includes recovery after a crash.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A running cluster. The server is stopped when this is dropped; the data stay.
#[derive(Debug)]
pub struct Cluster {
    server: Child,
    settings: ClusterSettings,
}

/// How a server is stopped (<https://www.postgresql.org/docs/current/server-shutdown.html>).
/// Committed transactions survive each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// "Fast": clients are disconnected, and memory is written to disk.
    Fast,
    /// "Immediate": memory is not written to disk; the next start recovers.
    Immediate,
    /// The postmaster is killed. The other processes notice and exit by themselves; the next start
    /// waits for that.
    Kill,
}

impl Cluster {
    /// Starts the cluster of a folder. If the folder has no data, the cluster is created first.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub fn start(
        installation: &Installation,
        settings: &ClusterSettings,
    ) -> Result<Self, PostgresError> {
        let user = settings.make_folder()?;
        let data = settings.data();
        if !data.join("PG_VERSION").exists() {
            initialise(installation, settings, user, &data)?;
        }
        // Processes of a server that was killed may take a moment to exit. Until then they keep its
        // shared memory, and possibly its socket.
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match Self::launch(installation, settings, user, &data) {
                Err(PostgresError::EarlierServer | PostgresError::PortInUse(_))
                    if Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                outcome => return outcome,
            }
        }
    }

    fn launch(
        installation: &Installation,
        settings: &ClusterSettings,
        user: Option<SystemUser>,
        data: &Path,
    ) -> Result<Self, PostgresError> {
        let folder = &settings.folder;
        let log = folder.join("postgres.log");
        // Opened for appending, because processes of an earlier server may still write to it.
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let output = output.map_err(io_error(format!("making {}", log.display())))?;
        output.set_len(0).map_err(io_error(format!("emptying {}", log.display())))?;
        let errors = output.try_clone().map_err(io_error("sharing the log"))?;
        let mut server = installation.command("postgres", user);
        // In its own process group, a Ctrl-C at the terminal does not reach the server: the process
        // that started it gets the signal and stops it in order.
        server.arg("-D").arg(data).stdout(output).stderr(errors).process_group(0);
        let mut options = vec![
            format!("port={}", settings.port),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "max_connections=300".to_owned(),
            "max_prepared_transactions=20".to_owned(),
        ];
        if !settings.durable {
            options.extend(
                ["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned),
            );
        }
        for option in options.iter().chain(&settings.parameters) {
            server.arg("-c").arg(option);
        }
        let server = server.spawn().map_err(io_error("starting postgres"))?;
        let mut cluster = Self { server, settings: settings.clone() };
        cluster.wait_until_ready(installation)?;
        Ok(cluster)
    }

    /// The process id of the postmaster.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }

    /// Whether the server still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.server.try_wait(), Ok(None))
    }

    /// Stops the server with [`StopMode::Fast`].
    pub fn stop(&mut self) {
        self.stop_with(StopMode::Fast);
    }

    /// Stops the server, and waits until it has exited.
    pub fn stop_with(&mut self, mode: StopMode) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        let signal = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
            StopMode::Kill => Signal::KILL,
        };
        let signalled = i32::try_from(self.server.id())
            .ok()
            .and_then(Pid::from_raw)
            .is_some_and(|process| kill_process(process, signal).is_ok());
        while signalled && Instant::now() < deadline {
            if !self.runs() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // A server that was killed recovers from its write-ahead log at the next start.
        let _already_ended = self.server.kill();
        let _already_ended = self.server.wait();
    }

    fn wait_until_ready(&mut self, installation: &Installation) -> Result<(), PostgresError> {
        let deadline = Instant::now() + START_TIMEOUT;
        let port = self.settings.port.to_string();
        while Instant::now() < deadline && self.runs() {
            let mut ready = installation.command("pg_isready", None);
            ready.args(["-q", "-h", "127.0.0.1", "-p", &port]);
            if ready.status().map_err(io_error("running pg_isready"))?.success() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = self.settings.end_of_log(usize::MAX);
        if log.contains("pre-existing shared memory block") {
            return Err(PostgresError::EarlierServer);
        }
        if log.contains("Address already in use") {
            return Err(PostgresError::PortInUse(self.settings.port));
        }
        Err(PostgresError::NotStarted(self.settings.end_of_log(10)))
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
    user: Option<SystemUser>,
    data: &Path,
) -> Result<(), PostgresError> {
    // An interrupted attempt leaves a folder that initdb refuses.
    if data.exists() {
        std::fs::remove_dir_all(data).map_err(io_error(format!("removing {}", data.display())))?;
    }
    let secret = settings.folder.join("password");
    std::fs::write(&secret, &settings.password)
        .map_err(io_error("writing the password for initdb"))?;
    if let Some(SystemUser { uid, gid }) = user {
        chown(&secret, Some(uid), Some(gid)).map_err(io_error("giving away the password file"))?;
    }
    let mut initdb = installation.command("initdb", user);
    initdb.args([
        "--encoding=UTF8",
        "--locale=C",
        "--auth=scram-sha-256",
        "--username",
        &settings.user,
    ]);
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
