//! Clocks of the services that can be stepped, by libfaketime
//! (<https://github.com/wolfcw/libfaketime>). Only the wall clock is stepped, not the monotonic
//! one.

use std::path::{Path, PathBuf};

use anyhow::Context;
use local_stack::stack::Instance;

/// Where Linux distributions install the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// One clock per instance. Its offset is in a file that libfaketime reads.
#[derive(Debug)]
pub(crate) struct Clocks {
    library: &'static str,
    folder: PathBuf,
}

impl Clocks {
    /// Returns `None` if libfaketime is not installed.
    pub(crate) fn make(folder: &Path) -> Option<Self> {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists())?;
        Some(Self { library, folder: folder.to_owned() })
    }

    /// Sets the offset of an instance's clock, in seconds.
    pub(crate) fn step(&self, instance: Instance, seconds: i64) -> anyhow::Result<()> {
        let file = self.file(instance);
        let new = self.folder.join("clock.new");
        // Renaming is atomic: libfaketime must not read half an offset.
        std::fs::write(&new, format!("{seconds:+}\n"))
            .and_then(|()| std::fs::rename(&new, &file))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// The environment variables that make a process use its clock. The clock starts without an
    /// offset.
    pub(crate) fn variables(
        &self,
        instance: Instance,
    ) -> anyhow::Result<[(&'static str, String); 4]> {
        self.step(instance, 0)?;
        Ok([
            ("LD_PRELOAD", self.library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file(instance).display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ])
    }

    /// Removes libfaketime's shared memory of a process that was killed. A later process with the
    /// same id would use it as its own.
    pub(crate) fn forget(process_id: u32) {
        for kind in ["faketime_shm", "sem.faketime_sem"] {
            // It does not exist if the process exited by itself, or ran without libfaketime.
            let _gone = std::fs::remove_file(format!("/dev/shm/{kind}_{process_id}"));
        }
    }

    fn file(&self, Instance { service, number }: Instance) -> PathBuf {
        self.folder.join(format!("clock-{}-{number}", service.name()))
    }
}
