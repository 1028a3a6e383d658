use std::time::Duration;

use serde::Deserialize;

use super::sections::{HTTP, HttpSettings};
use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    http: HttpSettings,
    database: Database,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Database {
    host: String,
    password: secrecy::SecretString,
}

const DEFAULTS: Defaults = Defaults {
    own: "# The header of the file.\n\n# Where requests are served.\n[http]\nport = 1\n# Short.\n\
          drain = \"3s\"\n\n[database]\n# The server.\nhost = \"127.0.0.1\"\npassword = \"secret\"\n",
    shared: &[("http", HTTP)],
    libpq: &[("PGHOST", "database.host")],
};

fn with_variables<const N: usize>(variables: [(&str, &str); N]) -> Overrides {
    let variables = variables.map(|(name, value)| (name.into(), value.into())).into();
    Overrides { variables, ..Overrides::default() }
}

fn with_file(text: &str) -> Overrides {
    Overrides { file: Some(("a.toml".into(), text.to_owned())), ..Overrides::default() }
}

fn load(overrides: &Overrides) -> Example {
    DEFAULTS.load_with(overrides).unwrap()
}

fn error(overrides: &Overrides) -> String {
    DEFAULTS.load_with::<Example>(overrides).unwrap_err().to_string()
}

#[test]
fn later_layers_override_earlier_ones() {
    let settings = load(&Overrides::default());
    assert_eq!((settings.http.port, settings.http.drain), (1, Duration::from_secs(3)));
    assert_eq!(
        (settings.http.workers.get(), settings.http.idle_timeout.get()),
        (2, Duration::from_secs(5))
    );
    assert!(!format!("{:?}", settings.database.password).contains("secret"));
    let mut overrides =
        with_variables([("PGHOST", "b"), ("NEWCYCLE__HTTP__WORKERS", "4"), ("HTTP_PORT", "9")]);
    overrides.file = with_file("http.workers = 3\nhttp.port = 3\ndatabase.host = \"a\"\n").file;
    let settings = load(&overrides);
    assert_eq!((settings.http.port, settings.http.workers.get()), (3, 4));
    assert_eq!(settings.database.host, "b");
    overrides.variables.insert("NEWCYCLE__DATABASE__HOST".into(), "c".into());
    assert_eq!(load(&overrides).database.host, "c");
}

#[test]
fn every_setting_is_printed_with_its_origin_and_passwords_are_redacted() {
    let text = DEFAULTS
        .print_with(&with_variables([("PGHOST", "db"), ("NEWCYCLE__HTTP__WORKERS", "3")]))
        .unwrap();
    let expected = "[database]\nhost = \"db\"  # PGHOST\npassword = \"<redacted>\"  # default\n\n\
                    [http]\ndrain = \"3s\"  # default\nhost = \"127.0.0.1\"  # default\n\
                    idle_timeout = \"5s\"  # default\nport = 1  # default\nunread_timeout = \"30s\"  # default\n\
                    workers = 3  # NEWCYCLE__HTTP__WORKERS\n";
    assert_eq!(text, expected);
    let nested = Defaults { own: "[a]\nz = 1\n[a.b]\nc = 2\n", shared: &[], libpq: &[] };
    let text = nested.print_with(&Overrides::default()).unwrap();
    assert_eq!(text, "[a]\nz = 1  # default\n\n[a.b]\nc = 2  # default\n");
}

#[test]
fn an_unknown_key_is_refused_with_its_origin_and_the_nearest_setting() {
    assert_eq!(
        error(&with_variables([("NEWCYCLE__HTTP__PROT", "1")])),
        "NEWCYCLE__HTTP__PROT sets http.prot, but there is no such setting; did you mean http.port \
         (NEWCYCLE__HTTP__PORT)? `print-settings` lists all settings"
    );
    assert!(error(&with_variables([("NEWCYCLE__HTTP", "1")])).contains("no such setting"));
    assert!(error(&with_file("http = 3\n")).starts_with("a.toml sets http, but"));
    assert!(error(&with_file("[htpp]\n")).starts_with("a.toml sets htpp, but"));
    load(&with_file("[http]\n"));
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_origin() {
    let names = "NEWCYCLE__HTTP__PORT sets http.port, which must be a whole number";
    for wrong in ["abc", "yes", "-1", "1.5", "", "9223372036854775807"] {
        let error = error(&with_variables([("NEWCYCLE__HTTP__PORT", wrong)]));
        assert!(error.starts_with(names), "{wrong:?}: {error}");
    }
    assert!(
        error(&with_file("[http]\nport = true\n"))
            .starts_with("a.toml sets http.port, which must be")
    );
    assert!(error(&with_file("[http.port]\n")).starts_with("a.toml sets http.port, which must be"));
    assert_eq!(
        error(&with_file("[http]\nidle_timeout = 5\n")),
        "a.toml sets http.idle_timeout, which must be a duration with its unit, such as \"250ms\" or \"5s\""
    );
}

#[test]
fn a_value_out_of_range_is_refused_with_its_origin_and_the_range() {
    for workers in ["1", "512"] {
        load(&with_variables([("NEWCYCLE__HTTP__WORKERS", workers)]));
    }
    for (variable, value, message) in [
        (
            "NEWCYCLE__HTTP__WORKERS",
            "0",
            "http.workers to a value that cannot be used: 0 is not from 1 to 512",
        ),
        (
            "NEWCYCLE__HTTP__WORKERS",
            "513",
            "http.workers to a value that cannot be used: 513 is not from 1 to 512",
        ),
        ("NEWCYCLE__HTTP__WORKERS", "9007199254740992", "9007199254740992 is not from 1 to 512"),
        (
            "NEWCYCLE__HTTP__PORT",
            "65536",
            "http.port to a value that cannot be used: invalid value: integer `65536`",
        ),
        ("NEWCYCLE__HTTP__IDLE_TIMEOUT", "5", "time unit needed, for example 5sec or 5ms"),
        (
            "NEWCYCLE__HTTP__IDLE_TIMEOUT",
            "0s",
            "0s is not from 1ms to 24days in whole milliseconds",
        ),
        (
            "NEWCYCLE__HTTP__IDLE_TIMEOUT",
            "1500us",
            "1ms 500us is not from 1ms to 24days in whole milliseconds",
        ),
        (
            "NEWCYCLE__HTTP__DRAIN",
            "25days",
            "25days is not from 0s to 24days in whole milliseconds",
        ),
    ] {
        let error = error(&with_variables([(variable, value)]));
        assert!(error.starts_with(variable) && error.contains(message), "{value}: {error}");
    }
    load(&with_variables([
        ("NEWCYCLE__HTTP__DRAIN", "0s"),
        ("NEWCYCLE__HTTP__IDLE_TIMEOUT", "24days"),
    ]));
}

#[test]
fn a_malformed_file_is_refused_without_quoting_it() {
    let error = error(&with_file("[database]\npassword = \"hunter2\n"));
    assert!(
        error.starts_with("a.toml is not valid TOML: line 2: ") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn printed_settings_can_be_read_again() {
    let odd = "a \"b\" 'c' \\ \n\t\u{1}\u{7f}é";
    let printed = DEFAULTS.print_with(&with_variables([("PGHOST", odd)])).unwrap();
    assert_eq!(load(&with_file(&printed)).database.host, odd);
    let switch = Defaults { own: "[a]\nb = true\n", shared: &[], libpq: &[] };
    let printed = switch.print_with(&with_variables([("NEWCYCLE__A__B", "false")])).unwrap();
    assert_eq!(printed, "[a]\nb = false  # NEWCYCLE__A__B\n");
}

#[test]
fn the_reference_has_every_setting() {
    let text = DEFAULTS.reference();
    assert!(
        text.starts_with(
            "### `http`\n\nWhere requests are served.\n\n| setting | default | meaning |\n"
        ),
        "{text}"
    );
    for line in [
        "| `http.port` | `1` | The port to listen on; 0 picks a free one. |",
        "| `http.drain` | `\"3s\"` | Short. |",
        "| `database.host` | `\"127.0.0.1\"` | The server. `PGHOST` sets it, too. |",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let printed = DEFAULTS.print_with(&Overrides::default()).unwrap();
    assert_eq!(text.matches("\n| `").count(), printed.matches(" = ").count(), "{text}");
}
