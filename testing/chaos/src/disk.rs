//! A small disk for Postgres, which can be filled: a tmpfs of its own, which only root can make.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::system::{run, text};

/// Room for a long run.
const SIZE: &str = "size=3g";

/// A mounted disk; unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// One at `folder`; none where this process may not mount, and the folder is on the machine's own disk.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn make(folder: &Path) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let mounted = run("mount", &["-t", "tmpfs", "-o", SIZE, "newcycle-chaos", text(folder)?]);
        Ok(mounted.is_ok().then(|| Self { folder: folder.to_owned() }))
    }

    /// Leaves no room for anything more.
    ///
    /// # Errors
    /// The disk cannot be made smaller.
    pub fn fill(&self) -> anyhow::Result<()> {
        let used = rustix::fs::statvfs(&self.folder)?;
        let bytes = (used.f_blocks - used.f_bfree) * used.f_frsize;
        // What is written meanwhile would be more than the new size, which is refused: room for that is left.
        for spare in [0, 256 << 10, 1 << 20, 4 << 20, 16 << 20] {
            let size = format!("remount,size={}", bytes + spare);
            if run("mount", &["-o", &size, text(&self.folder)?]).is_ok() {
                return Ok(());
            }
        }
        anyhow::bail!("the disk could not be made smaller than {bytes} bytes")
    }

    /// Makes room again.
    ///
    /// # Errors
    /// The disk cannot be made larger.
    pub fn empty(&self) -> anyhow::Result<()> {
        run("mount", &["-o", &format!("remount,{SIZE}"), text(&self.folder)?])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(folder) = text(&self.folder) {
            // Lazily: what still ends may have its folder open.
            let _left_behind = run("umount", &["-l", folder]);
        }
    }
}
