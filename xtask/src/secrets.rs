//! The secrets of the native stack: files that only their owner can read.
//!
//! Invariant: a secret is in no argument of a process and in no log. `cargo xtask up` makes each
//! once, so that no password has a default.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rand::distr::{Alphanumeric, SampleString};
use secrecy::SecretString;

/// The characters of a password. 62³² is more than 2¹⁹⁰.
const PASSWORD_CHARACTERS: usize = 32;

const OWNER_ONLY_FOLDER: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;

/// The folder of the secrets, in the data folder.
#[derive(Debug)]
pub(crate) struct SecretFolder {
    path: PathBuf,
}

impl SecretFolder {
    pub(crate) fn of(data_folder: &Path) -> Self {
        Self { path: data_folder.join("secrets") }
    }

    /// A secret; `None` if it was not made yet.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Option<SecretString>> {
        let path = self.path.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Stores a secret, and returns its file.
    pub(crate) fn write(&self, name: &str, secret: &str) -> anyhow::Result<PathBuf> {
        let making = || format!("making {}", self.path.display());
        let mut folder = DirBuilder::new();
        folder.recursive(true).mode(OWNER_ONLY_FOLDER);
        folder.create(&self.path).with_context(making)?;
        // The folder may be older.
        std::fs::set_permissions(&self.path, Permissions::from_mode(OWNER_ONLY_FOLDER))
            .with_context(making)?;
        let path = self.path.join(name);
        write_private(&path, secret)?;
        Ok(path)
    }

    /// A password, which is random the first time.
    pub(crate) fn password(&self, name: &str) -> anyhow::Result<SecretString> {
        if let Some(made) = self.read(name)? {
            return Ok(made);
        }
        let password = Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_CHARACTERS);
        self.write(name, &password)?;
        Ok(password.into())
    }

    /// The file of a password, which is random the first time.
    pub(crate) fn file(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.password(name)?;
        Ok(self.path.join(name))
    }

    /// Deletes all secrets.
    pub(crate) fn delete(&self) -> anyhow::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("deleting {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Writes a file that only its owner can read. It is complete at every moment.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let next = path.with_extension("next");
    let write = || {
        // One that was left behind may have other permissions.
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(OWNER_ONLY_FILE).open(&next)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&next, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_password_is_made_once_and_only_its_owner_can_read_it() {
        let data = tempfile::tempdir().unwrap();
        let folder = SecretFolder::of(data.path());
        assert!(folder.read("ingest").unwrap().is_none());
        let password = folder.password("ingest").unwrap();
        assert_eq!(password.expose_secret().len(), PASSWORD_CHARACTERS);
        let again = folder.password("ingest").unwrap();
        assert_eq!(again.expose_secret(), password.expose_secret());
        let other = folder.password("notifier").unwrap();
        assert_ne!(other.expose_secret(), password.expose_secret());
        assert_eq!((mode(&folder.path), mode(&folder.path.join("ingest"))), (0o700, 0o600));
        folder.delete().unwrap();
        folder.delete().unwrap();
        assert!(!folder.path.exists());
    }

    #[test]
    fn an_older_file_or_folder_does_not_keep_its_permissions() {
        let data = tempfile::tempdir().unwrap();
        let folder = SecretFolder::of(data.path());
        std::fs::create_dir(&folder.path).unwrap();
        std::fs::set_permissions(&folder.path, Permissions::from_mode(0o755)).unwrap();
        let path = folder.path.join("key");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        folder.write("key", "new").unwrap();
        assert_eq!((mode(&folder.path), mode(&path)), (0o700, 0o600));
        assert_eq!(folder.read("key").unwrap().unwrap().expose_secret(), "new");
    }
}
