//! `PgBouncer` in front of a Postgres, as operators run it: in transaction mode, with few sessions.

use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use postgres_kit::database::DatabaseSettings;
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::path::find_program;
use crate::ports::reserve_port;

/// How long it may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running `PgBouncer`. It is killed when this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl PgBouncer {
    /// Starts it in front of a database, for the role of `database`. All clients together use at
    /// most `sessions` sessions of the server.
    ///
    /// # Errors
    /// It is not installed, or it does not listen within a minute; the message has its log then.
    pub fn start(database: &DatabaseSettings, sessions: u16) -> anyhow::Result<Self> {
        let program = find_program("pgbouncer")
            .context("pgbouncer is not installed: `cargo xtask test` installs it on Debian")?;
        let folder = tempfile::Builder::new().prefix("newcycle-pgbouncer-").tempdir()?;
        let port = reserve_port()?;
        let DatabaseSettings { host, port: server, name, user, password, .. } = database;
        let users = folder.path().join("users.txt");
        std::fs::write(&users, format!("\"{user}\" \"{}\"\n", password.expose_secret()))?;
        let configuration = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]
            {name} = host={host} port={server} dbname={name}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = scram-sha-256
            auth_file = {}
            pool_mode = transaction
            default_pool_size = {sessions}
            ",
            users.display()
        );
        std::fs::write(&configuration, text.replace("            ", ""))?;
        let log = std::fs::File::create(folder.path().join("pgbouncer.log"))?;
        let mut command = Command::new(program);
        if rustix::process::geteuid().is_root() {
            // It refuses to run as root, and reads its files after it has become this user.
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
            command.args(["-u", "postgres"]);
        }
        let process = command
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting pgbouncer")?;
        let mut pooler = Self { process, port, folder };
        pooler.wait_until_listening()?;
        Ok(pooler)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What it has logged until now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn log(&self) -> io::Result<String> {
        std::fs::read_to_string(self.folder.path().join("pgbouncer.log"))
    }

    fn wait_until_listening(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.process.try_wait()?.is_some() || started.elapsed() > START_TIMEOUT {
                bail!("pgbouncer does not listen: {}", self.log()?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _already_ended = self.process.kill();
        let _already_waited = self.process.wait();
    }
}
