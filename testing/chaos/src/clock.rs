//! Clocks of the services that can be stepped, by libfaketime
//! (<https://github.com/wolfcw/libfaketime>): the clock that tells the date, not the one that measures time.

use std::path::{Path, PathBuf};

use anyhow::Context;
use local_stack::stack::Instance;

/// Where Linux distributions put it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// A clock for each instance, and by how much it is off, in files.
#[derive(Debug)]
pub struct Clocks {
    library: &'static str,
    folder: PathBuf,
}

impl Clocks {
    /// None where libfaketime is not on this machine.
    #[must_use]
    pub fn make(folder: &Path) -> Option<Self> {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists())?;
        Some(Self { library, folder: folder.to_owned() })
    }

    /// Steps one clock to this many seconds before or after the right time.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn step(&self, instance: Instance, seconds: i64) -> anyhow::Result<()> {
        let (file, new) = (self.file(instance), self.folder.join("clock.new"));
        // At once: a half written one would be no time.
        std::fs::write(&new, format!("{seconds:+}\n"))
            .and_then(|()| std::fs::rename(&new, &file))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// What a process is told so that it goes by its clock, which is right at first.
    ///
    /// # Errors
    /// The clock cannot be written down.
    pub fn variables(&self, instance: Instance) -> anyhow::Result<[(&'static str, String); 4]> {
        self.step(instance, 0)?;
        Ok([
            ("LD_PRELOAD", self.library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file(instance).display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ])
    }

    /// Removes what libfaketime has in shared memory for a process that was killed, which another process with the same
    /// number would take for its own.
    pub fn forget(process_id: u32) {
        for kind in ["faketime_shm", "sem.faketime_sem"] {
            // Not there where the process has ended by itself, or has no clock of its own.
            let _gone = std::fs::remove_file(format!("/dev/shm/{kind}_{process_id}"));
        }
    }

    fn file(&self, Instance { part, number }: Instance) -> PathBuf {
        self.folder.join(format!("clock-{}-{number}", part.name()))
    }
}
