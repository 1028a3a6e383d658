//! Clocks of the two ingest-apis that can be stepped, by libfaketime
//! (<https://github.com/wolfcw/libfaketime>): the clock that tells the date, not the one that measures time.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Where Linux distributions put it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// Which clocks, and by how much they are off.
#[derive(Debug)]
pub struct Clocks {
    library: &'static str,
    folder: PathBuf,
}

impl Clocks {
    /// Clocks that are right; none where libfaketime is not on this machine.
    ///
    /// # Errors
    /// They cannot be written down.
    pub fn make(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(library) = LIBRARIES.into_iter().find(|library| Path::new(library).exists()) else {
            return Ok(None);
        };
        let clocks = Self { library, folder: folder.to_owned() };
        for number in [1, 2] {
            clocks.step(number, 0)?;
        }
        Ok(Some(clocks))
    }

    /// Steps one clock to this many seconds before or after the right time.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn step(&self, number: usize, seconds: i64) -> anyhow::Result<()> {
        let (file, new) = (self.file(number), self.folder.join("clock.new"));
        // At once: a half written one would be no time.
        std::fs::write(&new, format!("{seconds:+}\n"))
            .and_then(|()| std::fs::rename(&new, &file))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// What a process is told so that it goes by the clock.
    #[must_use]
    pub fn variables(&self, number: usize) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file(number).display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.join(format!("clock-{number}"))
    }
}
