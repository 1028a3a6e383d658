//! The commands of the programs: each answers `--help` and `--version`, has the commands that
//! `docs/operations.md` lists, and reports failures by its exit code.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use local_stack::test_database::service_programs;

use crate::operations::operations_page;

const PROGRAMS: [&str; 6] =
    ["ingest-api", "stats-notifier", "sse-gateway", "dashboard", "migrate", "access"];

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(service_programs().join(program));
    command.args(arguments).env_remove("NEWCYCLE_CONFIG").output().unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

/// The names of the commands in a text of `--help`. clap adds `help` itself.
fn commands(help: &str) -> BTreeSet<&str> {
    let list = help.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let first_words = list.lines().filter(|line| !line.starts_with("   "));
    let names = first_words.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

/// The commands in the rows "| `program command` | … |" of the table, and those of "each service".
fn documented<'a>(page: &'a str, program: &str) -> BTreeSet<&'a str> {
    let section = page.split("\n## Commands and exit codes\n").nth(1).unwrap();
    let rows = section.split("\n## ").next().unwrap().lines();
    let mut names = BTreeSet::new();
    for row in rows.filter_map(|line| line.strip_prefix("| ")) {
        let mut cells = row.split(" | ");
        let (programs, command) = (cells.next().unwrap(), cells.next().unwrap());
        let is_service = !["migrate", "access"].contains(&program);
        if programs.contains(&format!("`{program}`"))
            || programs == "every program"
            || is_service && programs == "each service"
        {
            names.extend(command.split('`').nth(1));
        }
    }
    names
}

#[test]
fn every_command_is_listed_and_documented() {
    let page = operations_page();
    for program in PROGRAMS {
        let help = run(program, &["--help"]);
        let help = stdout(&help);
        assert_eq!(commands(help), documented(&page, program), "{program}");
        assert!(help.contains("Exit codes: 0 if"), "{help}");
        for command in commands(help) {
            let help = run(program, &[command, "--help"]);
            assert!(stdout(&help).contains("Usage:"), "{program} {command}: {help:?}");
        }
    }
}

#[test]
fn every_program_says_its_version_and_commit() {
    for program in PROGRAMS {
        let output = run(program, &["--version"]);
        let version = stdout(&output);
        let expected = format!("{program} {} (commit ", env!("CARGO_PKG_VERSION"));
        assert!(version.starts_with(&expected), "{version}");
        let uses_the_schema = ["ingest-api", "stats-notifier", "migrate"].contains(&program);
        let schema = format!(", schema {})\n", postgres_kit::schema::VERSION);
        assert_eq!(version.ends_with(&schema), uses_the_schema, "{version}");
    }
}

#[test]
fn failures_are_told_from_wrong_arguments() {
    for program in PROGRAMS {
        let wrong = run(program, &["--no-such-argument"]);
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
        let mut unreadable = Command::new(service_programs().join(program));
        unreadable.arg("print-settings").env("NEWCYCLE_CONFIG", "/no/such/file.toml");
        let failed = unreadable.output().unwrap();
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        let reason = String::from_utf8(failed.stderr).unwrap();
        assert!(reason.starts_with("error: ") && reason.contains("/no/such/file.toml"), "{reason}");
    }
}
