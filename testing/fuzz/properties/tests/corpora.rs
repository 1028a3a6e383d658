//! Replays the corpora, and variations of them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use fuzz_properties::variations::Variations;
use fuzz_properties::{CHECKS, Check};

/// The number of variations of each corpus. Their seed is fixed, so that a mistake fails in the
/// change that made it, and not in a later one.
const VARIATIONS: usize = 3_000;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{} has only {} files", folder.display(), paths.len());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

fn replay(name: &str) {
    let check: Check = CHECKS.into_iter().find(|(of, _)| *of == name).unwrap().1;
    let files = corpus(name);
    for (path, bytes) in &files {
        attempt(check, bytes, &format!("{}", path.display()));
    }
    let bytes: Vec<Vec<u8>> = files.into_iter().map(|(_, bytes)| bytes).collect();
    let mut variations = Variations::new(1);
    for number in 0..VARIATIONS {
        attempt(check, &variations.next_of(&bytes), &format!("variation {number}"));
    }
}

fn attempt(check: Check, bytes: &[u8], name: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| check(bytes)) {
        println!("{name} of {} bytes: {:?}", bytes.len(), String::from_utf8_lossy(bytes));
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn uploads() {
    replay("ndjson");
}

#[test]
fn arrays() {
    replay("array");
}

#[test]
fn queries() {
    replay("queries");
}

#[test]
fn last_event_ids() {
    replay("resume");
}

#[test]
fn streams() {
    replay("stream");
}

#[test]
fn every_corpus_has_a_check_and_a_target() {
    let names = |folder: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let mut checks = CHECKS.map(|(name, _)| name);
    checks.sort_unstable();
    assert_eq!(names("corpus"), checks);
    assert_eq!(names("targets/fuzz_targets"), checks);
}
