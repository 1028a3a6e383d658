//! A small disk for Postgres that can be filled: a tmpfs, which only root can mount.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

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
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let arguments = ["-t", "tmpfs", "-o", SIZE, "newcycle-chaos"];
        let mounted = run(Command::new("mount").args(arguments).arg(folder));
        Ok(mounted.is_ok().then(|| Self { folder: folder.to_owned() }))
    }

    /// Shrinks the disk until it has no free space.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let used = rustix::fs::statvfs(&self.folder)?;
        let bytes = (used.f_blocks - used.f_bfree) * used.f_frsize;
        // The kernel refuses a size below what is stored. Postgres may write meanwhile, so each
        // attempt leaves more room for that.
        for spare in [0, 256 << 10, 1 << 20, 4 << 20, 16 << 20] {
            if self.resize(&format!("size={}", bytes + spare)).is_ok() {
                return Ok(());
            }
        }
        bail!("the disk could not be made smaller than {bytes} bytes")
    }

    /// Restores the original size.
    pub(crate) fn make_room(&self) -> anyhow::Result<()> {
        self.resize(SIZE)
    }

    fn resize(&self, size: &str) -> anyhow::Result<()> {
        run(Command::new("mount").args(["-o", &format!("remount,{size}")]).arg(&self.folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because a process that is still exiting may have a file open.
        let _left_behind = run(Command::new("umount").arg("-l").arg(&self.folder));
    }
}

/// Runs a command that must succeed.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?} could not be run"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", errors.trim());
    Ok(())
}
