//! The folders in which programs are found.

use std::path::PathBuf;

/// The folders of PATH.
pub fn folders() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// A program on PATH, at an absolute path, or in `/usr/sbin`, which has Debian's servers and is not
/// on everyone's PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    // Joining a folder with an absolute path gives the absolute path.
    let mut paths = folders().chain(["/usr/sbin".into()]).map(|folder| folder.join(name));
    paths.find(|program| program.is_file())
}
