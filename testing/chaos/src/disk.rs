//! A small disk for Postgres that can be filled: a tmpfs, which only root can mount.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::command::{path_text, run};

/// Enough for a long run.
const SIZE: &str = "size=3g";

/// A mounted disk. It is unmounted when this is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts a disk at `folder`. Returns `None` if this process may not mount; the folder is then
    /// on the machine's own disk.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let mounted =
            run("mount", &["-t", "tmpfs", "-o", SIZE, "newcycle-chaos", path_text(folder)?]);
        Ok(mounted.is_ok().then(|| Self { folder: folder.to_owned() }))
    }

    /// Shrinks the disk until it has no free space.
    ///
    /// # Errors
    /// The disk cannot be made smaller.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let used = rustix::fs::statvfs(&self.folder)?;
        let bytes = (used.f_blocks - used.f_bfree) * used.f_frsize;
        // The kernel refuses a size below what is stored. Postgres may write meanwhile, so each
        // attempt leaves more room for that.
        for spare in [0, 256 << 10, 1 << 20, 4 << 20, 16 << 20] {
            let size = format!("remount,size={}", bytes + spare);
            if run("mount", &["-o", &size, path_text(&self.folder)?]).is_ok() {
                return Ok(());
            }
        }
        anyhow::bail!("the disk could not be made smaller than {bytes} bytes")
    }

    /// Restores the original size.
    ///
    /// # Errors
    /// The disk cannot be made larger.
    pub(crate) fn make_room(&self) -> anyhow::Result<()> {
        run("mount", &["-o", &format!("remount,{SIZE}"), path_text(&self.folder)?])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(folder) = path_text(&self.folder) {
            // Lazily, because a process that is still exiting may have a file open.
            let _left_behind = run("umount", &["-l", folder]);
        }
    }
}
