//! Why there is no Postgres.

use std::io;
use std::path::PathBuf;

/// The oldest major version that Newcycle supports.
pub(super) const OLDEST: u32 = 15;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No Postgres is installed.
    #[error(
        "no Postgres {OLDEST} or newer was found on PATH, in /usr/lib/postgresql or in Homebrew's folders: install \
         one (Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17), then try again"
    )]
    NotFound,
    /// A folder has no programs of Postgres, or they do not run on this machine.
    #[error("{} has no Postgres {OLDEST} or newer that runs on this machine", .0.display())]
    NotThere(PathBuf),
    /// This process runs as root, and there is no other user to run Postgres as.
    #[error(
        "Postgres refuses to run as root, and there is no user named postgres to run it as: create one"
    )]
    NoUser,
    /// The operating system refused a file operation or could not run a program.
    #[error("{doing}: {source}")]
    Io {
        /// What was attempted.
        doing: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// A program of Postgres failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// The program's name.
        program: &'static str,
        /// What it wrote to standard error.
        output: String,
    },
    /// Processes of an earlier server of the same folder still run.
    #[error("processes of an earlier server of this folder still run: end them, then try again")]
    EarlierServer,
    /// Another process listens on the port.
    #[error("Postgres cannot listen on port {0}: it is in use")]
    PortInUse(u16),
    /// The server did not start in time, or ended.
    #[error("Postgres did not start; the end of its log:\n{0}")]
    NotStarted(String),
}

/// Says what was attempted when the operating system refused.
pub(super) fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> PostgresError {
    let doing = doing.into();
    move |source| PostgresError::Io { doing, source }
}
