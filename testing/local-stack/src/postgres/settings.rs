//! How a cluster is created and run, and as which user.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use postgres_kit::database::DatabaseSettings;

use super::error::{PostgresError, io_error};

/// How a cluster is created and run.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// The folder of the data and the log. It is created if it does not exist.
    pub folder: PathBuf,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The superuser.
    pub user: String,
    /// The superuser's password.
    pub password: String,
    /// Whether commits survive a crash of the machine. Tests do not need this.
    pub durable: bool,
    /// More server parameters, as `name=value`. They override the ones that follow from the fields
    /// above.
    pub parameters: Vec<String>,
}

/// The user that Postgres runs as, if this process runs as root.
#[derive(Debug, Clone, Copy)]
pub(super) struct SystemUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl ClusterSettings {
    /// The data directory, as Postgres calls it. An existing one is used, not created again.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// How the superuser connects to a database of the cluster.
    #[must_use]
    pub fn database(&self, name: &str) -> DatabaseSettings {
        DatabaseSettings::local(self.port, name, &self.user, &self.password)
    }

    /// The last lines of the server's log.
    #[must_use]
    pub fn end_of_log(&self, lines: usize) -> String {
        let log = std::fs::read_to_string(self.folder.join("postgres.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(lines).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Creates the folder if it does not exist, and returns its owner if that is not this process's
    /// user.
    pub(super) fn make_folder(&self) -> Result<Option<SystemUser>, PostgresError> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder)
            .map_err(io_error(format!("making {}", folder.display())))?;
        let user = other_user(folder)?;
        if let Some(SystemUser { uid, gid }) = user {
            chown(folder, Some(uid), Some(gid))
                .map_err(io_error(format!("giving away {}", folder.display())))?;
        }
        Ok(user)
    }
}

/// The user to run Postgres as, if this process runs as root: the owner of the folder, or
/// `postgres` if the folder is root's own.
fn other_user(folder: &Path) -> Result<Option<SystemUser>, PostgresError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owner = std::fs::metadata(folder).map_err(io_error("looking at the data folder"))?;
    if owner.uid() != 0 {
        return Ok(Some(SystemUser { uid: owner.uid(), gid: owner.gid() }));
    }
    let id = |option: &str| {
        let output =
            Command::new("id").args([OsStr::new(option), OsStr::new("postgres")]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    match (id("-u"), id("-g")) {
        (Some(uid), Some(gid)) => Ok(Some(SystemUser { uid, gid })),
        _ => Err(PostgresError::NoUser),
    }
}
