//! The programs of one version of Postgres: those of this machine, or those in a folder.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::postgres::{ClusterSettings, PostgresError, User};

/// The oldest version that will do.
pub(crate) const OLDEST: u32 = 15;

/// The programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    programs: PathBuf,
    version: Version,
}

/// A version as its programs tell it, such as 15.18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// What a release is for: data of one major version cannot be read by another.
    pub major: u32,
    text: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Installation {
    /// The newest on this machine: on PATH, in Debian's versioned folders, or of Homebrew.
    ///
    /// # Errors
    /// [`PostgresError::NotFound`], which says what to install.
    pub fn find() -> Result<Self, PostgresError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        for (parent, below) in
            [("/usr/lib/postgresql", "bin"), ("/opt/homebrew/opt", "bin"), ("/usr/local/opt", "bin")]
        {
            let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
            folders.extend(entries.map(|entry| entry.path().join(below)));
        }
        let found = folders.into_iter().filter_map(|programs| Self::at(programs).ok());
        found.max_by_key(|installation| installation.version.major).ok_or(PostgresError::NotFound)
    }

    /// That of a folder of programs, such as `/usr/lib/postgresql/15/bin`.
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

    /// The folder of its programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// A program, such as `pg_dump`, that is to connect to a cluster as its superuser. It runs as whoever owns the
    /// cluster's folder, which is made where it is missing: `pg_basebackup` may write there.
    ///
    /// # Errors
    /// [`PostgresError`] where the folder cannot be made.
    pub fn program(&self, name: &str, cluster: &ClusterSettings) -> Result<Command, PostgresError> {
        let mut command = self.command(name, cluster.make_folder()?);
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", cluster.port.to_string())
            .env("PGUSER", &cluster.user)
            .env("PGPASSWORD", &cluster.password);
        Ok(command)
    }

    pub(crate) fn command(&self, program: &str, user: Option<User>) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some(User { uid, gid }) = user {
            command.uid(uid).gid(gid);
        }
        // A folder that any user can enter; initdb looks at where it stands.
        command.current_dir("/").stdin(Stdio::null());
        command
    }
}

/// The version of the programs in a folder, where all that are needed are there, and run.
fn version(programs: &Path) -> Option<Version> {
    if !programs.join("initdb").exists() {
        return None;
    }
    let output = Command::new(programs.join("postgres")).arg("--version").output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    // Such as "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
    said.split_whitespace().find_map(|word| {
        let major = word.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()?;
        Some(Version { major, text: word.to_owned() })
    })
}
