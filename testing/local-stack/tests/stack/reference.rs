//! `docs/configuration.md` is generated from the programs' default settings, and the programs read
//! only the variables that it names.

use std::fmt::Write;
use std::process::Command;

use local_stack::stack::{Replicas, ServiceKind};
use local_stack::test_database::{TestDatabase, service_programs};
use postgres_kit::database::DatabaseSettings;
use secrecy::ExposeSecret;
use service_kit::settings::{Defaults, ProgramSettings};

use crate::support::{settings, start_with};

const HEAD: &str = "# Configuration

Each program reads its settings from four places; each overrides those before it:

1. its embedded defaults, listed below: every setting has one;
2. the TOML file that the variable `NEWCYCLE_CONFIG` names, if it is set;
3. libpq's variables `PGHOST`, `PGPORT`, `PGDATABASE`, `PGSSLMODE` and `PGSSLROOTCERT` (`migrate`
   also reads `PGUSER` and `PGPASSWORD`), if the program connects to Postgres;
4. `NEWCYCLE__SECTION__KEY`, which reaches every setting: `NEWCYCLE__HTTP__WORKERS=4` sets
   `http.workers`.

A name that is not listed here is refused at startup, with a suggestion. Durations have a unit:
`\"250ms\"`, `\"5s\"`, `\"1h\"`. `print-settings`, as in `sse-gateway print-settings`, prints the
settings in effect and the origin of each; passwords are redacted. The short names in `.env`, such
as `INGEST_PORT`, belong to `cargo xtask up` and Compose, which translate them; the programs do not
read them.

This page is generated from the defaults, and a test compares the two.
";

const PROGRAMS: [(&str, Defaults); 6] = [
    ("ingest-api", ingest_api::settings::Settings::DEFAULTS),
    ("stats-notifier", stats_notifier::settings::Settings::DEFAULTS),
    ("sse-gateway", sse_gateway::settings::Settings::DEFAULTS),
    ("dashboard", dashboard::settings::Settings::DEFAULTS),
    ("migrate", migrate::settings::Settings::DEFAULTS),
    ("access", access::settings::Settings::DEFAULTS),
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

/// What Kubernetes sets in each pod for the services of its namespace, if `enableServiceLinks` is
/// not false: all of it for one service, and for others the one that looks like a port of ours.
const SERVICE_LINKS: [(&str, &str); 16] = [
    ("DASHBOARD_SERVICE_HOST", "10.0.0.1"),
    ("DASHBOARD_SERVICE_PORT", "8082"),
    ("DASHBOARD_SERVICE_PORT_HTTP", "8082"),
    ("DASHBOARD_PORT", "tcp://10.0.0.1:8082"),
    ("DASHBOARD_PORT_8082_TCP", "tcp://10.0.0.1:8082"),
    ("DASHBOARD_PORT_8082_TCP_PROTO", "tcp"),
    ("DASHBOARD_PORT_8082_TCP_PORT", "8082"),
    ("DASHBOARD_PORT_8082_TCP_ADDR", "10.0.0.1"),
    ("INGEST_PORT", "tcp://10.0.0.2:8080"),
    ("INGEST_API_PORT", "tcp://10.0.0.2:8080"),
    ("GATEWAY_PORT", "tcp://10.0.0.3:8081"),
    ("SSE_GATEWAY_PORT", "tcp://10.0.0.3:8081"),
    ("NOTIFIER_PORT", "tcp://10.0.0.4:8083"),
    ("STATS_NOTIFIER_PORT", "tcp://10.0.0.4:8083"),
    ("NEWCYCLE_PORT", "tcp://10.0.0.5:80"),
    ("POSTGRES_RW_PORT", "tcp://10.0.0.6:5432"),
];

struct Section {
    name: &'static str,
    description: String,
    settings: Vec<Setting>,
}

struct Setting {
    name: &'static str,
    default: &'static str,
    description: String,
}

/// The lines of a TOML file that begin a section or set something, each with the comment above it.
fn commented(text: &'static str) -> Vec<(Vec<&'static str>, &'static str)> {
    let (mut lines, mut comment) = (Vec::new(), Vec::new());
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(words) => comment.push(words),
            None if line.is_empty() => comment.clear(),
            None => lines.push((std::mem::take(&mut comment), line)),
        }
    }
    lines
}

fn setting((comment, line): (Vec<&str>, &'static str)) -> Setting {
    let (name, default) = line.split_once(" = ").unwrap();
    Setting { name, default, description: comment.join(" ").replace('|', "\\|") }
}

/// The sections of a program, each with the shared settings first.
fn sections(defaults: &Defaults) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (comment, line) in commented(defaults.own) {
        if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_end_matches(']');
            let shared = defaults.shared.iter().filter(|shared| shared.name == name);
            let settings = shared.flat_map(|shared| commented(shared.keys)).map(setting).collect();
            sections.push(Section { name, description: comment.join("\n"), settings });
            continue;
        }
        let own = setting((comment, line));
        let settings = &mut sections.last_mut().unwrap().settings;
        match settings.iter_mut().find(|shared| shared.name == own.name) {
            Some(shared) if own.description.is_empty() => shared.default = own.default,
            Some(shared) => *shared = own,
            None => settings.push(own),
        }
    }
    sections
}

/// Every setting of a program with its default and its description, a table for each section.
fn tables(defaults: &Defaults) -> String {
    let tables = sections(defaults).into_iter().map(|section| {
        let mut table = format!("### `{}`\n\n", section.name);
        if !section.description.is_empty() {
            write!(table, "{}\n\n", section.description).unwrap();
        }
        table.push_str("| setting | default | meaning |\n|---|---|---|\n");
        for Setting { name, default, description } in section.settings {
            let key = format!("{}.{name}", section.name);
            let libpq = defaults.libpq.iter().find(|(_, of)| *of == key);
            let libpq = libpq
                .map_or_else(String::new, |(variable, _)| format!(" `{variable}` sets it, too."));
            writeln!(table, "| `{key}` | `{default}` | {description}{libpq} |").unwrap();
        }
        table
    });
    tables.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_is_generated_from_the_defaults() {
    let mut text = HEAD.to_owned();
    for (name, defaults) in PROGRAMS {
        let tables = tables(&defaults);
        let printed = defaults.print().unwrap();
        assert_eq!(tables.matches("\n| `").count(), printed.lines().count(), "{name}: {tables}");
        write!(text, "\n## {name}\n\n{tables}").unwrap();
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

/// They are ignored: the services listen where their own settings say.
#[tokio::test]
async fn each_program_runs_with_the_variables_that_kubernetes_sets() {
    let database = TestDatabase::create().await;
    let mut stack = settings(database.superuser(), Replicas::ONE);
    for service in ServiceKind::ALL {
        stack.set(&SERVICE_LINKS.map(|(name, value)| (service, name, value)));
    }
    // Ready on the ports that the test has chosen.
    let _stack = start_with(stack).await;
    let run = |program: &str, command: &str, database: &DatabaseSettings| {
        let output = Command::new(service_programs().join(program))
            .arg(command)
            .envs(SERVICE_LINKS)
            .env("PGHOST", database.host.to_string())
            .env("PGPORT", database.port.to_string())
            .env("PGDATABASE", &database.name)
            .env("NEWCYCLE__DATABASE__USER", &database.user)
            .env("NEWCYCLE__DATABASE__PASSWORD", database.password.expose_secret())
            .output()
            .unwrap();
        assert!(output.status.success(), "{program} {command}: {output:?}");
    };
    run("migrate", "wait", &database.notifier());
    run("access", "list", &database.access());
}
