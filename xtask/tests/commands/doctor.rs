//! What is missing is named, with a way to get it.

use std::process::{Command, Output};

use crate::support::root;

fn doctor(path: &str) -> (Output, String) {
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = doctor.arg("doctor").current_dir(root()).env("PATH", path).output().unwrap();
    let shown = String::from_utf8(output.stdout.clone()).unwrap();
    (output, shown)
}

#[test]
fn a_machine_that_runs_the_tests_lacks_nothing_for_them() {
    let (output, shown) = doctor(&std::env::var("PATH").unwrap());
    assert!(output.status.success(), "{shown}");
    for present in ["Postgres 15 or newer", "Python 3.10", "PgBouncer", "Prometheus", "curl", "ps"]
    {
        let line = shown.lines().find(|line| line.contains(present)).unwrap();
        assert!(line.starts_with("ok "), "{line}");
    }
}

#[test]
fn what_is_missing_is_named_with_the_command_that_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let (output, shown) = doctor(folder.path().to_str().unwrap());
    assert!(!output.status.success(), "{shown}");
    assert!(shown.contains("MISSING  curl, for test, ci: apt-get install curl\n"), "{shown}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("curl, ps missing"), "{error}");
}
