use std::time::Duration;

use expect_test::expect;
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
    own: "[http]\nport = 1\ndrain_timeout = \"3s\"\n\n\
          [database]\nhost = \"127.0.0.1\"\npassword = \"secret\"\n",
    shared: &[HTTP],
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
    assert_eq!((settings.http.port, settings.http.drain_timeout), (1, Duration::from_secs(3)));
    assert_eq!(
        (settings.http.workers.get(), settings.http.idle_timeout.get()),
        (2, Duration::from_secs(75))
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
    let variables = with_variables([("PGHOST", "db"), ("NEWCYCLE__HTTP__WORKERS", "3")]);
    expect![[r#"
        database.host = "db"  # PGHOST
        database.password = "<redacted>"  # default
        http.allowed_hosts = ""  # default
        http.answer_timeout = "2m"  # default
        http.drain_timeout = "3s"  # default
        http.head_timeout = "5s"  # default
        http.host = "127.0.0.1"  # default
        http.idle_timeout = "75s"  # default
        http.max_connections_per_address = 2500  # default
        http.max_connections_per_worker = 10000  # default
        http.max_unsent_bytes = 33554432  # default
        http.port = 1  # default
        http.trusted_proxies = ""  # default
        http.unread_timeout = "30s"  # default
        http.workers = 3  # NEWCYCLE__HTTP__WORKERS
    "#]]
    .assert_eq(&DEFAULTS.print_with(&variables).unwrap());
    let nested = Defaults { own: "[a]\nz = 1\n[a.b]\nc = 2\n", shared: &[], libpq: &[] };
    let text = nested.print_with(&Overrides::default()).unwrap();
    assert_eq!(text, "a.b.c = 2  # default\na.z = 1  # default\n");
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
    assert!(error(&with_file("[htpp]\nport = 1\n")).starts_with("a.toml sets htpp.port, but"));
    assert!(error(&with_file("[htpp]\n")).starts_with("a.toml sets htpp, but"));
    load(&with_file("[http]\n"));
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_origin() {
    let names = "NEWCYCLE__HTTP__PORT sets http.port, which must be a whole number from 0 to \
                 9007199254740992";
    let too_large = ["9007199254740993", "9223372036854775807", "9223372036854775808"];
    for wrong in ["abc", "yes", "-1", "1.5", ""].into_iter().chain(too_large) {
        let error = error(&with_variables([("NEWCYCLE__HTTP__PORT", wrong)]));
        assert!(error.starts_with(names), "{wrong:?}: {error}");
    }
    assert!(
        error(&with_file("[http]\nport = true\n"))
            .starts_with("a.toml sets http.port, which must be")
    );
    assert!(error(&with_file("[http.port]\n")).starts_with("a.toml sets http.port, which must be"));
    assert!(
        error(&with_file("[database]\npassword = 123\n"))
            .ends_with("sets database.password, which must be text")
    );
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
        ("NEWCYCLE__HTTP__WORKERS", "0", "0 is not from 1 to 512"),
        ("NEWCYCLE__HTTP__WORKERS", "513", "513 is not from 1 to 512"),
        ("NEWCYCLE__HTTP__WORKERS", "9007199254740992", "9007199254740992 is not from 1 to 512"),
        ("NEWCYCLE__HTTP__PORT", "65536", "invalid value: integer `65536`, expected u16"),
        ("NEWCYCLE__HTTP__IDLE_TIMEOUT", "5", "time unit needed, for example 5sec or 5ms"),
        ("NEWCYCLE__HTTP__IDLE_TIMEOUT", "0s", "0s is not from 1ms to 24days"),
        ("NEWCYCLE__HTTP__DRAIN_TIMEOUT", "25days", "25days is not from 0s to 24days"),
        (
            "NEWCYCLE__HTTP__ALLOWED_HOSTS",
            "counts.example,counts.example:8081",
            "\"counts.example:8081\" is not the name of a host, without scheme, port and path",
        ),
        (
            "NEWCYCLE__HTTP__TRUSTED_PROXIES",
            "10.0.0.0/8, proxy",
            "\"proxy\" is not an IP address or a network such as 10.0.0.0/8",
        ),
    ] {
        let error = error(&with_variables([(variable, value)]));
        assert!(error.starts_with(variable) && error.ends_with(message), "{value}: {error}");
        assert!(error.contains("to a value that cannot be used: "), "{error}");
    }
    load(&with_variables([
        ("NEWCYCLE__HTTP__DRAIN_TIMEOUT", "0s"),
        ("NEWCYCLE__HTTP__IDLE_TIMEOUT", "24days"),
    ]));
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused_and_not_changed() {
    use std::os::unix::ffi::OsStringExt;
    for name in ["PGHOST", "NEWCYCLE__DATABASE__PASSWORD"] {
        let mut overrides = Overrides::default();
        overrides.variables.insert("OTHER".into(), OsString::from_vec(vec![0xff]));
        load(&overrides);
        overrides.variables.insert(name.into(), OsString::from_vec(b"hunter2\xff".to_vec()));
        assert_eq!(error(&overrides), format!("the environment variable {name} is not UTF-8"));
    }
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
    assert_eq!(printed, "a.b = false  # NEWCYCLE__A__B\n");
}

#[test]
fn the_credentials_of_urls_are_not_printed() {
    for (text, expected) in [
        ("http://user:secret@a:1/b", "http://<redacted>@a:1/b"),
        (
            "http://secret@a,http://b,http://c:secret@d",
            "http://<redacted>@a,http://b,http://<redacted>@d",
        ),
        // Not valid, but the user may not notice before the settings are printed.
        ("http://user:sec@ret/sec,ret@a", "http://<redacted>@a"),
        ("user:secret@a", "<redacted>@a"),
        ("http://user:s3://cret@host", "http://<redacted>@host"),
        ("http://user:a,b://c@d, HTTPS://e:f://@g", "http://<redacted>@d, HTTPS://<redacted>@g"),
        ("http://a,http://b", "http://a,http://b"),
    ] {
        let printed = DEFAULTS.print_with(&with_variables([("PGHOST", text)])).unwrap();
        let expected = format!("database.host = \"{expected}\"  # PGHOST\n");
        assert!(printed.starts_with(&expected), "{printed}");
    }
}
