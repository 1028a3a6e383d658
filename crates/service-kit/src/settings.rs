//! Settings: defaults, then a file, then environment variables. Each layer overrides those before
//! it.
//!
//! 1. the program's `config/default.toml`, and the sections it shares with others ([`sections`]);
//! 2. the TOML file that `NEWCYCLE_CONFIG` names, if it is set;
//! 3. libpq's variables, such as `PGHOST`, if the program connects to Postgres;
//! 4. `NEWCYCLE__SECTION__KEY`, which reaches every setting.
//!
//! Invariant: the defaults name every setting, so any other name in a later layer is a mistake and
//! is refused. Variables without the prefix are ignored, so that what an orchestrator sets by
//! itself (such as Kubernetes' `DASHBOARD_PORT=tcp://10.0.0.1:80`) cannot reach a program.
//!
//! The layers are merged here and not by the `config` crate: the merge is a loop over keys, and
//! that crate would read `port = true` as port 1, and would report a port of 65536 without its
//! origin.

pub mod sections;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use values::{NonZeroDuration, comma_separated, duration, from_1_to, parsed, split_at_commas};

/// Names the file of the second layer.
const FILE_VARIABLE: &str = "NEWCYCLE_CONFIG";

/// The prefix of the variables that reach every setting.
const PREFIX: &str = "NEWCYCLE__";

/// The largest integer that a setting accepts. Larger ones are mistakes. They would overflow in
/// sums, or make tokio's semaphores panic without naming the setting.
const INTEGER_MAX: i64 = 1 << 53;

/// Why the settings could not be read. `origin` is a file or a variable. No message quotes a value
/// that could be a password, or a line of the file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages explain the fields")]
pub enum SettingsError {
    #[error("NEWCYCLE_CONFIG names {}, which cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not valid TOML: line {line}: {message}", path.display())]
    Malformed { path: PathBuf, line: usize, message: String },
    #[error("the environment variable {0} is not UTF-8")]
    NotUtf8(String),
    #[error("{origin} sets {key}, but there is no such setting; {hint}")]
    Unknown { origin: String, key: String, hint: String },
    #[error("{origin} sets {key}, which must be {expected}")]
    WrongType { origin: String, key: String, expected: &'static str },
    #[error("{origin} sets {key} to a value that cannot be used: {reason}")]
    Refused { origin: String, key: String, reason: String },
    #[error("{0}")]
    Conflict(String),
}

impl SettingsError {
    /// Refuses two settings of which the first is more than half of the second.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`], which says why by `why`: what would happen otherwise.
    pub fn unless_at_most_half(
        (smaller, short): (&str, NonZeroDuration),
        (larger, long): (&str, NonZeroDuration),
        why: &str,
    ) -> Result<(), Self> {
        if short.get() <= long.get() / 2 {
            return Ok(());
        }
        Err(Self::Conflict(format!(
            "{smaller} must be at most half of {larger}, but is {short} of {long}: {why}"
        )))
    }
}

/// A section that several programs have.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// The header of the section, without brackets.
    pub name: &'static str,
    /// The keys below the header as TOML, each with its default and its description.
    pub keys: &'static str,
}

impl Section {
    /// The same keys below another header.
    #[must_use]
    pub const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// Every setting of one program, with its default and its description.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// The text of the program's `config/default.toml`. It has a header for each section.
    pub own: &'static str,
    /// Sections that several programs have. `own` overrides their values and descriptions.
    pub shared: &'static [Section],
    /// The variables of libpq that the program reads, each with the key that it sets.
    pub libpq: &'static [(&'static str, &'static str)],
}

/// The settings of a program.
pub trait ProgramSettings: DeserializeOwned {
    /// Every setting, with its default and its description.
    const DEFAULTS: Defaults;

    /// Refuses settings that do not go together.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`].
    fn check(&self) -> Result<(), SettingsError> {
        Ok(())
    }

    /// Reads the settings of this process.
    ///
    /// # Errors
    /// [`SettingsError`], which names the setting.
    fn load() -> Result<Self, SettingsError> {
        load_checked(&Overrides::from_process()?)
    }
}

pub(crate) fn load_checked<S: ProgramSettings>(overrides: &Overrides) -> Result<S, SettingsError> {
    let settings: S = S::DEFAULTS.load_with(overrides)?;
    settings.check()?;
    Ok(settings)
}

/// What a process reads in addition to its defaults.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    file: Option<(PathBuf, String)>,
    variables: BTreeMap<String, OsString>,
}

#[derive(Debug)]
struct Setting {
    value: Value,
    origin: String,
}

/// Settings by dotted key.
type Settings = BTreeMap<String, Setting>;

impl Defaults {
    /// The settings of this process as TOML, each with its origin. Passwords are redacted, also
    /// those in URLs.
    ///
    /// # Errors
    /// [`SettingsError`], which names the file or variable and the key.
    pub fn print(&self) -> Result<String, SettingsError> {
        self.print_with(&Overrides::from_process()?)
    }

    pub(crate) fn load_with<T: DeserializeOwned>(
        &self,
        overrides: &Overrides,
    ) -> Result<T, SettingsError> {
        let settings = self.merge(overrides)?;
        let table = parse(Path::new("the merged settings"), &write(&settings))?;
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let key = error.path().to_string();
            let origin = settings.get(&key).map_or("default", |setting| &setting.origin).to_owned();
            SettingsError::Refused { origin, key, reason: error.inner().message().to_owned() }
        })
    }

    fn print_with(&self, overrides: &Overrides) -> Result<String, SettingsError> {
        let mut settings = self.merge(overrides)?;
        for (key, setting) in &mut settings {
            if key.ends_with("password") && setting.value.as_str() != Some("") {
                setting.value = "<redacted>".into();
            } else if let Some(text) = setting.value.as_str() {
                setting.value = without_credentials(text).into();
            }
        }
        Ok(write(&settings))
    }

    fn merge(&self, overrides: &Overrides) -> Result<Settings, SettingsError> {
        let mut settings = Settings::new();
        for Section { name, keys } in
            self.shared.iter().chain(&[Section { name: "", keys: self.own }])
        {
            let values = flatten(name, parse(Path::new("default.toml"), keys)?);
            for (key, value) in values.into_iter().filter(|(_, value)| !value.is_table()) {
                settings.insert(key, Setting { value, origin: "default".to_owned() });
            }
        }
        if let Some((path, text)) = &overrides.file {
            for (key, value) in flatten("", parse(path, text)?) {
                replace(&mut settings, key, &value, path.display().to_string())?;
            }
        }
        let libpq = self.libpq.iter().filter_map(|(variable, key)| {
            let (variable, value) = overrides.variables.get_key_value(*variable)?;
            Some((variable, (*key).to_owned(), value))
        });
        let own = overrides.variables.iter().filter_map(|(variable, value)| {
            let key = variable.strip_prefix(PREFIX)?;
            Some((variable, key.to_lowercase().replace("__", "."), value))
        });
        for (variable, key, value) in libpq.chain(own) {
            let text = value.to_str().ok_or_else(|| SettingsError::NotUtf8(variable.clone()))?;
            replace(&mut settings, key, &text.into(), variable.clone())?;
        }
        Ok(settings)
    }
}

impl Overrides {
    /// Reads the file and the variables of this process. Call it once: the file may be a pipe,
    /// which is empty the second time.
    pub(crate) fn from_process() -> Result<Self, SettingsError> {
        let file = match std::env::var_os(FILE_VARIABLE).map(PathBuf::from) {
            None => None,
            Some(path) => match std::fs::read_to_string(&path) {
                Ok(text) => Some((path, text)),
                Err(source) => return Err(SettingsError::Unreadable { path, source }),
            },
        };
        // The names of settings are ASCII, so a name that is not UTF-8 cannot become one.
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .collect();
        Ok(Self { file, variables })
    }
}

/// The schemes of the URLs of settings.
const SCHEMES: [&str; 4] = ["http", "https", "postgres", "postgresql"];

/// A text without the user names and passwords of its URLs, which commas separate, even if a URL is
/// not valid: settings can be printed before they are parsed.
#[must_use]
pub fn without_credentials(text: &str) -> String {
    let mut shown = String::new();
    let mut url = text;
    let mut searched = 0;
    while let Some(found) = url[searched..].find("://") {
        let scheme_end = searched + found;
        searched = scheme_end + "://".len();
        // A password can contain commas and `://`. So only a known scheme begins another URL.
        if let Some((before, scheme)) = url[..scheme_end].rsplit_once(',')
            && SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme.trim_start()))
        {
            shown.push_str(&redacted(before));
            shown.push(',');
            url = &url[before.len() + 1..];
            searched -= before.len() + 1;
        }
    }
    shown.push_str(&redacted(url));
    shown
}

fn redacted(url: &str) -> String {
    match url.rsplit_once('@') {
        None => url.to_owned(),
        Some((before, rest)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://<redacted>@{rest}"),
            None => format!("<redacted>@{rest}"),
        },
    }
}

fn parse(path: &Path, text: &str) -> Result<Table, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
        SettingsError::Malformed {
            path: path.to_owned(),
            line: 1 + before.matches('\n').count(),
            message: error.message().to_owned(),
        }
    })
}

/// The values of a table by dotted key. An empty table counts as a value, so that a misspelt
/// section is noticed.
fn flatten(section: &str, table: Table) -> Vec<(String, Value)> {
    let values = table.into_iter().flat_map(|(name, value)| {
        let key = if section.is_empty() { name } else { format!("{section}.{name}") };
        match value {
            Value::Table(table) if !table.is_empty() => flatten(&key, table),
            value => vec![(key, value)],
        }
    });
    values.collect()
}

/// Settings as TOML, each with its origin as a comment.
fn write(settings: &Settings) -> String {
    let lines = settings
        .iter()
        .map(|(key, Setting { value, origin })| format!("{key} = {value}  # {origin}\n"));
    lines.collect()
}

/// Overrides one setting.
fn replace(
    settings: &mut Settings,
    key: String,
    value: &Value,
    origin: String,
) -> Result<(), SettingsError> {
    let below = format!("{key}.");
    if value.is_table() && settings.keys().any(|known| known.starts_with(&below)) {
        return Ok(()); // The header of a section, with nothing below it.
    }
    let Some(setting) = settings.get_mut(&key) else {
        // Jaro-Winkler favours a common beginning, as in `http.drain` for `http.drain_timeout`.
        let likeness = |known: &&String| strsim::jaro_winkler(&key, known);
        let nearest = settings.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hint = nearest.map_or_else(String::new, |nearest| {
            let variable = format!("{PREFIX}{}", nearest.replace('.', "__").to_uppercase());
            format!("did you mean {nearest} ({variable})? `print-settings` lists all settings")
        });
        return Err(SettingsError::Unknown { origin, key, hint });
    };
    match convert(&setting.value, value) {
        Ok(value) => *setting = Setting { value, origin },
        Err(expected) => return Err(SettingsError::WrongType { origin, key, expected }),
    }
    Ok(())
}

/// The value in the type of the default, or a description of that type. Variables are always text.
fn convert(default: &Value, value: &Value) -> Result<Value, &'static str> {
    let text = value.as_str();
    match default {
        Value::Boolean(_) => {
            let switch = value.as_bool().or_else(|| text?.parse().ok());
            switch.map(Value::from).ok_or("true or false")
        }
        Value::Integer(_) => {
            let number = value.as_integer().or_else(|| text?.parse().ok());
            let number = number.filter(|number| (0..=INTEGER_MAX).contains(number));
            number.map(Value::from).ok_or("a whole number from 0 to 9007199254740992")
        }
        // A port, or several.
        Value::String(default) if default.parse::<u16>().is_ok() => {
            let number = value.as_integer().map(|number| number.to_string());
            number.or_else(|| text.map(str::to_owned)).map(Value::from).ok_or("a number, or text")
        }
        Value::String(default) if humantime::parse_duration(default).is_ok() => {
            text.map(Value::from).ok_or("a duration with its unit, such as \"250ms\" or \"5s\"")
        }
        _ => text.map(Value::from).ok_or("text"),
    }
}

#[cfg(test)]
mod tests;
