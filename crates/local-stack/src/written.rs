//! Files of the repository that are written from the code, and must not drift from it.

use std::path::Path;

/// Panics where `path`, below the checkout, is not `text`; rewrites it first, but not in continuous integration
/// (`CI` is set), where nobody could commit it.
///
/// # Panics
/// The file differs, or cannot be written.
pub fn check(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::fs::read_to_string(&file).is_ok_and(|written| written == text) {
        return;
    }
    if std::env::var_os("CI").is_some() {
        panic!("{path} is not what the code says: run the tests elsewhere, which rewrites it, and commit it");
    }
    let folder = file.parent().unwrap_or(&file);
    if let Err(error) = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text)) {
        panic!("{path} is not what the code says, and cannot be rewritten: {error}");
    }
    panic!("{path} was not what the code says; it has been rewritten: look at it and commit it");
}
