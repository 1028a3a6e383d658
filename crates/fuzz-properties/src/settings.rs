//! Settings: a file of TOML, and environment variables.
//!
//! The first byte says whose settings they are. Lines up to one that is empty are variables; the rest is the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use service_kit::settings::{Layers, Surroundings};

/// The name of the file.
const FILE: &str = "newcycle.toml";

/// Settings that are understood can be printed, and what was printed is a file that says the same; what is refused is
/// refused in words that name the file, a variable or a setting, and passwords are neither printed nor named.
///
/// # Panics
/// Where this does not hold.
pub fn check(bytes: &[u8]) {
    let Some((service, rest)) = bytes.split_first() else { return };
    match service % 5 {
        0 => read::<ingest_api::settings::Settings>(rest, &ingest_api::settings::LAYERS),
        1 => read::<stats_notifier::settings::Settings>(rest, &stats_notifier::settings::LAYERS),
        2 => read::<sse_gateway::settings::Settings>(rest, &sse_gateway::settings::LAYERS),
        3 => read::<dashboard::settings::Settings>(rest, &dashboard::settings::LAYERS),
        _ => read::<migrate::settings::Settings>(rest, &migrate::settings::LAYERS),
    }
}

fn read<T: DeserializeOwned + Debug>(bytes: &[u8], layers: &Layers) {
    let surroundings = surroundings(bytes);
    let settings: T = match layers.load_in(&surroundings) {
        Ok(settings) => settings,
        Err(error) => return named(&error.to_string(), layers, &surroundings),
    };
    let printed = match layers.print_in(&surroundings) {
        Ok(printed) => printed,
        Err(error) => panic!("what was loaded cannot be printed: {error}"),
    };
    for password in passwords(&surroundings) {
        assert!(!printed.contains(password), "a password is printed: {printed}");
    }
    let file = Some((PathBuf::from(FILE), printed));
    let again = Surroundings { file, variables: BTreeMap::new() };
    match layers.load_in::<T>(&again) {
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

fn named(message: &str, layers: &Layers, surroundings: &Surroundings) {
    let in_file = message.contains(FILE);
    let mut names = surroundings.variables.keys().filter_map(|name| name.to_str());
    let variable = names.any(|name| message.to_lowercase().contains(&name.to_lowercase()));
    let sections = layers.defaults.lines().filter_map(|line| line.strip_prefix('['));
    let setting = sections.map(|name| name.trim_end_matches(']')).any(|name| message.contains(name));
    assert!(in_file || variable || setting, "{message:?} names nothing");
    for password in passwords(surroundings) {
        assert!(!message.contains(password), "a password is named: {message}");
    }
}

/// The passwords that are long and odd enough not to be found by chance.
fn passwords(surroundings: &Surroundings) -> impl Iterator<Item = &str> {
    let named = |name: &OsString| name.to_str().is_some_and(|name| name.to_uppercase().ends_with("PASSWORD"));
    let given = surroundings.variables.iter().filter(move |(name, _)| named(name));
    given.filter_map(|(_, value)| value.to_str().filter(|value| value.starts_with("hunter2-")))
}
