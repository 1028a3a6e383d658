//! `docs/configuration.md` is generated from the programs' default settings, and the programs read
//! only the variables that it names.

use std::fmt::Write;
use std::process::Command;

use local_stack::test_database::service_programs;
use service_kit::settings::Defaults;

const HEAD: &str = "# Configuration

Each program reads its settings from four places; each overrides those before it:

1. its embedded defaults, listed below: every setting has one;
2. the TOML file that the variable `NEWCYCLE_CONFIG` names, if it is set;
3. libpq's variables `PGHOST`, `PGPORT` and `PGDATABASE` (`migrate` also reads `PGUSER` and
   `PGPASSWORD`), if the program connects to Postgres;
4. `NEWCYCLE__SECTION__KEY`, which reaches every setting: `NEWCYCLE__HTTP__WORKERS=4` sets
   `http.workers`.

A name that is not listed here is refused at startup, with a suggestion. Durations have a unit:
`\"250ms\"`, `\"5s\"`, `\"1h\"`. `print-settings`, as in `sse-gateway print-settings`, prints the
settings in effect and the origin of each; passwords are redacted. The short names in `.env`, such
as `INGEST_PORT`, belong to `cargo xtask up` and Compose, which translate them; the programs do not
read them.

This page is generated from the defaults, and a test compares the two.
";

const PROGRAMS: [(&str, Defaults); 5] = [
    ("ingest-api", ingest_api::settings::DEFAULTS),
    ("stats-notifier", stats_notifier::settings::DEFAULTS),
    ("sse-gateway", sse_gateway::settings::DEFAULTS),
    ("dashboard", dashboard::settings::DEFAULTS),
    ("migrate", migrate::settings::DEFAULTS),
];

/// Variables that Kubernetes sets for services with our names, or `.env` for `cargo xtask up`.
const FOREIGN_VARIABLES: [&str; 13] = [
    "INGEST_PORT",
    "INGEST_INTERNAL_PORT",
    "GATEWAY_PORT",
    "GATEWAY_INTERNAL_PORT",
    "NOTIFIER_PORT",
    "DASHBOARD_PORT",
    "DASHBOARD_INTERNAL_PORT",
    "NEWCYCLE_PORT",
    "NEWCYCLE_UPSTREAMS",
    "INGEST_ALLOWED_ORIGINS",
    "INGEST_DATABASE_PASSWORD",
    "NOTIFIER_DATABASE_PASSWORD",
    "DASHBOARD_GATEWAY_URL",
];

#[test]
fn the_reference_is_generated_from_the_defaults() {
    let mut text = HEAD.to_owned();
    for (name, defaults) in PROGRAMS {
        write!(text, "\n## {name}\n\n{}", defaults.reference()).unwrap();
    }
    let unexplained: Vec<&str> = text.lines().filter(|line| line.ends_with("|  |")).collect();
    assert!(unexplained.is_empty(), "settings without a comment above them: {unexplained:#?}");
    expect_test::expect_file!["../../../../docs/configuration.md"].assert_eq(&text);
}

#[test]
fn variables_of_other_systems_do_not_reach_a_program() {
    let programs = service_programs();
    for (name, _) in PROGRAMS {
        let print = |variables: &[&str]| {
            let mut command = Command::new(programs.join(name));
            command
                .arg("print-settings")
                .envs(variables.iter().map(|name| (name, "tcp://10.0.0.1:80")));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{name}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(print(&FOREIGN_VARIABLES), print(&[]), "{name}");
    }
}
