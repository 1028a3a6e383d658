//! The server that `cargo xtask db` starts for tests, and the programs that it builds for them.
//!
//! `target/test-database.json` describes the server. Tests find that file by themselves, and
//! compare it with the migrations, so that none of them runs on an outdated schema.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::stack::{ServiceKind, built_programs};

/// What to do if there is no server, or if it is out of date.
pub(crate) const PREPARE: &str = "run `cargo xtask db` (it starts a Postgres for tests, which stays until `cargo xtask db --stop`)";

/// The folders, relative to this crate, that the template follows from.
const TEMPLATE_SOURCES: [&str; 2] = ["../../migrations", "../../crates/migrate/src"];

/// The server that `cargo xtask db` has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestServer {
    /// The address, as `host=… port=… user=… password=…` of a superuser.
    pub connection: String,
    /// The folder of its programs.
    pub programs: PathBuf,
    /// The folder of its data.
    pub folder: PathBuf,
    /// The process id of the server.
    pub process_id: u32,
    /// The [`template_fingerprint`] at the time when the template was made.
    pub template: u64,
}

impl TestServer {
    /// The file that describes the server, in the folder that cargo builds into.
    #[must_use]
    pub fn path(target: &Path) -> PathBuf {
        target.join("test-database.json")
    }

    /// The server that the file describes, or `None` without a file.
    ///
    /// # Errors
    /// The file cannot be read, or is malformed.
    pub fn read(target: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(Self::path(target)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The server of the folder that a test program was built into; the message says what is wrong.
    fn find(program: &Path, fingerprint: u64) -> Result<Self, String> {
        let found = program.ancestors().find(|folder| Self::path(folder).is_file());
        let Some(target) = found else {
            return Err(format!("there is no database for tests: {PREPARE}"));
        };
        match Self::read(target) {
            Ok(Some(server)) if server.template == fingerprint => Ok(server),
            Ok(Some(_)) => {
                Err(format!("the database for tests is older than migrations/: {PREPARE}"))
            }
            Ok(None) => Err(format!("the database for tests has just been stopped: {PREPARE}")),
            Err(error) => Err(format!(
                "{} is not readable ({error}): {PREPARE}",
                Self::path(target).display()
            )),
        }
    }
}

/// A number that changes with the migrations, and with the program that applies them.
///
/// # Errors
/// The sources cannot be read.
pub fn template_fingerprint() -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for folder in TEMPLATE_SOURCES {
        let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))?;
        let mut files =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            hasher.write(file.file_name().unwrap_or_default().as_encoded_bytes());
            hasher.write(&std::fs::read(file)?);
        }
    }
    Ok(hasher.finish())
}

/// The server of `cargo xtask db`. It is looked up once for each process.
///
/// # Panics
/// There is none, or its template is out of date.
pub(crate) fn server() -> &'static TestServer {
    static SERVER: OnceLock<TestServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let program = std::env::current_exe()
            .unwrap_or_else(|error| panic!("the path of this program is unknown: {error}"));
        let fingerprint = template_fingerprint()
            .unwrap_or_else(|error| panic!("migrations/ is not readable: {error}"));
        TestServer::find(&program, fingerprint).unwrap_or_else(|message| panic!("{message}"))
    })
}

/// The folder of the built programs, for tests that run them as processes.
///
/// # Panics
/// A program is not built, or older than its sources: only `cargo test --workspace` builds the
/// programs of other packages.
#[must_use]
pub fn service_programs() -> PathBuf {
    static CHECKED: OnceLock<PathBuf> = OnceLock::new();
    let check = || {
        let folder = built_programs()
            .unwrap_or_else(|error| panic!("the path of this program is unknown: {error}"));
        for name in ServiceKind::ALL.map(ServiceKind::name).into_iter().chain(["migrate", "access"])
        {
            if let Err(why) = check_program(&folder.join(name)) {
                panic!("{why}: {PREPARE}");
            }
        }
        folder
    };
    CHECKED.get_or_init(check).clone()
}

/// Checks that a program is newer than the sources, which cargo lists in its `.d` file.
fn check_program(program: &Path) -> Result<(), String> {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let built = changed(program).map_err(|_| format!("{} is not built", program.display()))?;
    let list = std::fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources);
    // As in a makefile, a space in a path is escaped.
    for source in sources.trim().replace("\\ ", "\0").split(' ') {
        let source = source.replace('\0', " ");
        if changed(Path::new(&source)).is_ok_and(|changed| changed > built) {
            return Err(format!("{} is older than {source}", program.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A folder with a description of a server whose template has this fingerprint.
    fn target(fingerprint: u64) -> (TempDir, TestServer) {
        let target = tempfile::tempdir().unwrap();
        let folder = target.path().to_owned();
        std::fs::create_dir_all(folder.join("debug/deps")).unwrap();
        let server = TestServer {
            connection: "host=127.0.0.1 port=1 user=postgres password=test".to_owned(),
            programs: PathBuf::from("/usr/lib/postgresql/15/bin"),
            folder: folder.clone(),
            process_id: 1,
            template: fingerprint,
        };
        std::fs::write(TestServer::path(&folder), serde_json::to_vec(&server).unwrap()).unwrap();
        (target, server)
    }

    #[test]
    fn a_test_program_finds_the_server_of_its_target_folder() {
        let (target, server) = target(7);
        let program = target.path().join("debug/deps/api-0123");
        assert_eq!(TestServer::find(&program, 7).unwrap(), server);
    }

    #[test]
    fn without_a_current_server_the_message_names_the_command() {
        let (target, _) = target(7);
        let program = target.path().join("debug/deps/api-0123");
        let outdated = TestServer::find(&program, 8).unwrap_err();
        assert!(
            outdated.contains("older than migrations/") && outdated.contains("`cargo xtask db`")
        );
        std::fs::remove_file(TestServer::path(target.path())).unwrap();
        let missing = TestServer::find(&program, 7).unwrap_err();
        assert!(missing.contains("no database") && missing.contains("`cargo xtask db`"));
    }

    #[test]
    fn a_program_that_is_missing_or_older_than_its_sources_is_refused() {
        let (target, _) = target(7);
        let program = target.path().join("ingest api");
        assert!(check_program(&program).unwrap_err().ends_with("is not built"));
        let source = target.path().join("main file.rs");
        std::fs::write(&source, "old").unwrap();
        std::fs::write(&program, "built").unwrap();
        let escaped = |path: &Path| path.to_str().unwrap().replace(' ', "\\ ");
        let list = format!("{}: {}\n", escaped(&program), escaped(&source));
        std::fs::write(program.with_extension("d"), list).unwrap();
        let now = std::time::SystemTime::now();
        let set =
            |path: &Path, time| std::fs::File::options().write(true).open(path)?.set_modified(time);
        set(&program, now).unwrap();
        set(&source, now - std::time::Duration::from_secs(1)).unwrap();
        assert_eq!(check_program(&program), Ok(()));
        set(&source, now + std::time::Duration::from_secs(1)).unwrap();
        assert!(check_program(&program).unwrap_err().ends_with("main file.rs"));
    }
}
