//! The programs of one version of Postgres: the newest on this machine, or those in a given folder.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::path;

use super::error::{OLDEST, PostgresError};
use super::settings::{ClusterSettings, SystemUser};

/// The programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    programs: PathBuf,
    version: PostgresVersion,
}

/// A version as `postgres --version` prints it, such as 15.18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresVersion {
    /// The major version. A server cannot read the data of another major version.
    pub major: u32,
    text: String,
}

impl fmt::Display for PostgresVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Installation {
    /// The newest version on PATH, in Debian's versioned folders or in Homebrew's.
    ///
    /// # Errors
    /// [`PostgresError::NotFound`], which says what to install.
    pub fn find() -> Result<Self, PostgresError> {
        let mut folders: Vec<PathBuf> = path::folders().collect();
        for (parent, below) in [
            ("/usr/lib/postgresql", "bin"),
            ("/opt/homebrew/opt", "bin"),
            ("/usr/local/opt", "bin"),
        ] {
            let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
            folders.extend(entries.map(|entry| entry.path().join(below)));
        }
        let found = folders.into_iter().filter_map(|programs| Self::at(programs).ok());
        found.max_by_key(|installation| installation.version.major).ok_or(PostgresError::NotFound)
    }

    /// The version in a folder of programs, such as `/usr/lib/postgresql/15/bin`.
    ///
    /// # Errors
    /// [`PostgresError::NotThere`].
    pub fn at(programs: impl Into<PathBuf>) -> Result<Self, PostgresError> {
        let programs = programs.into();
        match version(&programs) {
            Some(version) if version.major >= OLDEST => Ok(Self { programs, version }),
            _ => Err(PostgresError::NotThere(programs)),
        }
    }

    /// The folder of the programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The version of the programs.
    #[must_use]
    pub const fn version(&self) -> &PostgresVersion {
        &self.version
    }

    /// A client program, such as `pg_dump`, that connects to a cluster as its superuser. It runs as
    /// the owner of the cluster's folder, because `pg_basebackup` writes there. The folder is
    /// created if it does not exist.
    ///
    /// # Errors
    /// [`PostgresError`] if the folder cannot be created.
    pub fn program(&self, name: &str, cluster: &ClusterSettings) -> Result<Command, PostgresError> {
        let mut command = self.command(name, cluster.make_folder()?);
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", cluster.port.to_string())
            .env("PGUSER", &cluster.user)
            .env("PGPASSWORD", &cluster.password);
        Ok(command)
    }

    pub(super) fn command(&self, program: &str, user: Option<SystemUser>) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some(SystemUser { uid, gid }) = user {
            command.uid(uid).gid(gid);
        }
        // initdb reads its working directory, so this must be one that every user can enter.
        command.current_dir("/").stdin(Stdio::null());
        command
    }
}

/// The version of the programs in a folder, if all that are needed exist and run.
fn version(programs: &Path) -> Option<PostgresVersion> {
    if !programs.join("initdb").exists() {
        return None;
    }
    let output = Command::new(programs.join("postgres")).arg("--version").output().ok()?;
    let printed = String::from_utf8(output.stdout).ok()?;
    // Such as "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
    printed.split_whitespace().find_map(|word| {
        let major = word.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()?;
        Some(PostgresVersion { major, text: word.to_owned() })
    })
}
