//! Settings: a file of TOML, and environment variables.
//!
//! The first byte says whose settings they are. Lines up to one that is empty are variables; the rest is the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use service_kit::settings::{Known, Layers, SettingsError, Surroundings};
use toml::{Table, Value};

/// The name of the file.
const FILE: &str = "newcycle.toml";

/// How a password begins that is looked for.
const MARK: &str = "hunter2-";

/// Settings that are understood can be printed, and what was printed is a file that says the same; what is refused is
/// refused in words that name the file, a variable or a setting, and passwords are neither printed nor named, whether a
/// variable or the file has them.
///
/// # Panics
/// Where this does not hold.
pub fn check(bytes: &[u8]) {
    let Some((service, rest)) = bytes.split_first() else { return };
    match service % 5 {
        0 => read::<ingest_api::settings::Settings>(rest, &INGEST_API),
        1 => read::<stats_notifier::settings::Settings>(rest, &STATS_NOTIFIER),
        2 => read::<sse_gateway::settings::Settings>(rest, &SSE_GATEWAY),
        3 => read::<dashboard::settings::Settings>(rest, &DASHBOARD),
        _ => read::<migrate::settings::Settings>(rest, &MIGRATE),
    }
}

/// The settings of a service, whose defaults were read once, for that is most of the work; and the names of all of them.
struct Service {
    known: Known,
    short: &'static [(&'static str, &'static str)],
    names: Vec<String>,
}

static INGEST_API: LazyLock<Service> = LazyLock::new(|| service(&ingest_api::settings::LAYERS));
static STATS_NOTIFIER: LazyLock<Service> = LazyLock::new(|| service(&stats_notifier::settings::LAYERS));
static SSE_GATEWAY: LazyLock<Service> = LazyLock::new(|| service(&sse_gateway::settings::LAYERS));
static DASHBOARD: LazyLock<Service> = LazyLock::new(|| service(&dashboard::settings::LAYERS));
static MIGRATE: LazyLock<Service> = LazyLock::new(|| service(&migrate::settings::LAYERS));

fn service(layers: &Layers) -> Service {
    match layers.known() {
        Ok(known) => Service { known, short: layers.variables, names: names(layers.defaults) },
        Err(error) => panic!("the defaults cannot be read: {error}"),
    }
}

fn read<T: DeserializeOwned + Debug>(bytes: &[u8], service: &Service) {
    let surroundings = surroundings(bytes);
    let settings: T = match service.known.load_in(&surroundings) {
        Ok(settings) => settings,
        Err(error) => return named(&error, service, &surroundings),
    };
    let printed = match service.known.print_in(&surroundings) {
        Ok(printed) => printed,
        Err(error) => panic!("what was loaded cannot be printed: {error}"),
    };
    for password in passwords(&surroundings) {
        assert!(!printed.contains(&password), "a password is printed: {printed}");
        assert!(!format!("{settings:?}").contains(&password), "a password is told: {settings:?}");
    }
    let file = Some((PathBuf::from(FILE), printed));
    let again = Surroundings { file, variables: BTreeMap::new() };
    match service.known.load_in::<T>(&again) {
        Ok(again) => {
            assert_eq!(format!("{again:?}"), format!("{settings:?}"), "what was printed says the same");
        }
        Err(error) => panic!("what was printed is no such file: {error}\n{:?}", again.file),
    }
}

fn surroundings(bytes: &[u8]) -> Surroundings {
    let mut variables = BTreeMap::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let mut parts = line.splitn(2, |byte| *byte == b'=').map(<[u8]>::to_vec).map(OsString::from_vec);
        if let Some(name) = parts.next() {
            variables.insert(name, parts.next().unwrap_or_default());
        }
    }
    let file = std::str::from_utf8(rest).ok().filter(|text| !text.is_empty());
    Surroundings { file: file.map(|text| (PathBuf::from(FILE), text.to_owned())), variables }
}

fn named(error: &SettingsError, service: &Service, surroundings: &Surroundings) {
    let message = error.to_string();
    // What may be meant instead is a setting in any case.
    let said = message.split(", but there is no such setting").next().unwrap_or_default();
    let in_file = surroundings.file.is_some() && has_word(said, FILE);
    let of_settings = |name: &&str| {
        service.short.iter().any(|(short, _)| short == name) || name.to_lowercase().starts_with("newcycle__")
    };
    let mut variables = surroundings.variables.keys().filter_map(|name| name.to_str()).filter(of_settings);
    let variable = variables.any(|name| said.contains(name));
    let unknown = matches!(error, SettingsError::Unknown { .. });
    let setting = !unknown && service.names.iter().any(|name| has_word(said, name));
    assert!(in_file || variable || setting, "{message:?} names nothing");
    for password in passwords(surroundings) {
        assert!(!message.contains(&password), "a password is named: {message}");
    }
}

/// Whether the text has these words, and not only within longer ones.
fn has_word(text: &str, word: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || matches!(character, '_' | '.' | '-');
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

/// The names of all settings and sections, in full.
fn names(defaults: &str) -> Vec<String> {
    let (mut names, mut section) = (Vec::new(), String::new());
    for line in defaults.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            names.push(section.clone());
        } else if let Some((name, _)) = line.split_once(" = ") {
            names.push(format!("{section}.{name}"));
        }
    }
    names
}

/// The passwords that are odd enough not to be found by chance, nor because something else that may be shown says the
/// same.
fn passwords(surroundings: &Surroundings) -> Vec<String> {
    let (mut secret, mut shown) = (Vec::new(), Vec::new());
    for (name, value) in &surroundings.variables {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        sort(&name, &Value::String(value.into_owned()), &mut secret, &mut shown);
    }
    let text = surroundings.file.as_ref().map_or("", |(_, text)| text);
    match text.parse::<Table>() {
        Ok(table) => {
            table.iter().for_each(|(name, value)| sort(name, value, &mut secret, &mut shown));
        }
        // Of such a file, nothing may be shown at all.
        Err(_) => secret.extend(written_passwords(text)),
    }
    // A name is shown in other cases than it was given in, and with dots for two underscores.
    let plain = |text: &String| text.to_lowercase().replace("__", ".");
    let shown: Vec<String> = shown.iter().map(plain).collect();
    secret
        .retain(|secret| secret.starts_with(MARK) && !shown.iter().any(|text| text.contains(&plain(secret))));
    secret
}

/// Puts the texts of passwords with what is secret; and names and other texts with what may be shown.
fn sort(name: &str, value: &Value, secret: &mut Vec<String>, shown: &mut Vec<String>) {
    shown.push(name.to_owned());
    match value {
        Value::String(text) if name.to_lowercase().ends_with("password") => secret.push(text.clone()),
        Value::String(text) => shown.push(text.clone()),
        Value::Table(table) => {
            for (name, value) in table {
                sort(name, value, secret, shown);
            }
        }
        _ => {}
    }
}

/// What is written for a password in a text that is no TOML, as far as it goes.
fn written_passwords(text: &str) -> impl Iterator<Item = String> {
    let of = |text: &str| {
        let end =
            text.find(|character: char| !character.is_alphanumeric() && !matches!(character, '-' | '_'));
        text[..end.unwrap_or(text.len())].to_owned()
    };
    text.match_indices(MARK).filter_map(move |(at, _)| {
        let quotes = |character: char| character.is_whitespace() || matches!(character, '"' | '\'');
        let name = text[..at].trim_end_matches(quotes).strip_suffix('=')?.trim_end_matches(quotes);
        name.to_lowercase().ends_with("password").then(|| of(&text[at..]))
    })
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use super::*;

    fn passwords_of(bytes: &[u8]) -> Vec<String> {
        passwords(&surroundings(bytes))
    }

    #[test]
    fn passwords_are_found_wherever_they_are() {
        assert_eq!(passwords_of(b"PGPASSWORD=hunter2-a\n\n"), ["hunter2-a"]);
        assert_eq!(passwords_of(b"\n[database]\npassword = 'hunter2-b'\n"), ["hunter2-b"]);
        assert_eq!(passwords_of(b"\nroles.ingest_password = \"hunter2-\\u0063\""), ["hunter2-c"]);
        assert_eq!(passwords_of(b"\n[database]\npassword = \"hunter2-d\n"), ["hunter2-d"]);
        assert_eq!(passwords_of(b"\n\"password\"=hunter2-e, and more"), ["hunter2-e"]);
        // Whoever says it elsewhere may be shown it.
        let shown = [
            passwords_of(b"PGHOST=hunter2-f\nPGPASSWORD=hunter2-f\n\n"),
            passwords_of(b"NEWCYCLE__HUNTER2-G=1\n\npassword = 'hunter2-g'"),
        ];
        assert!(shown.iter().all(Vec::is_empty), "{shown:?}");
    }

    #[test]
    fn what_names_nothing_is_seen() {
        let service = &INGEST_API;
        let unknown = |origin: &str| SettingsError::Unknown {
            origin: origin.to_owned(),
            key: "login".to_owned(),
            hint: "is log.filter (or NEWCYCLE__LOG__FILTER) meant?".to_owned(),
        };
        let given = surroundings(b"=1\nlogin=2\nNEWCYCLE__LOGIN=3\n\n[login]\n");
        named(&unknown("NEWCYCLE__LOGIN"), service, &given);
        named(&unknown(FILE), service, &given);
        let wrong = |key: &str| SettingsError::Kind {
            origin: String::new(),
            key: key.to_owned(),
            expected: "a whole number",
        };
        named(&wrong("http.port"), service, &given);
        for error in [unknown(""), unknown("log"), wrong("https"), wrong("port"), wrong("")] {
            let caught = std::panic::catch_unwind(AssertUnwindSafe(|| named(&error, service, &given)));
            assert!(caught.is_err(), "{error}");
        }
    }
}
