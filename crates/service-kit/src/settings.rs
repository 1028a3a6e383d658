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
//! The layers are merged here and not by the `config` crate, whose origins are "the environment"
//! and a relative path, and whose errors quote values, which may be passwords.

mod reference;
pub mod sections;
mod values;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use values::{Count, NonZeroDuration, comma_separated, duration};

/// Names the file of the second layer.
const FILE_VARIABLE: &str = "NEWCYCLE_CONFIG";

/// The prefix of the variables that reach every setting.
const PREFIX: &str = "NEWCYCLE__";

/// The largest integer that a setting accepts. Larger ones are mistakes, and would overflow in
/// sums.
const INTEGER_MAX: i64 = 1 << 53;

/// What `print-settings` prints instead of a password.
const REDACTED: &str = "<redacted>";

/// Why the settings could not be read. `origin` is a file or a variable. No message quotes a value
/// of unknown meaning or a line of the file, which may be a password.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages explain the fields")]
pub enum SettingsError {
    #[error("NEWCYCLE_CONFIG names {}, which cannot be read", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
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
    #[error("{smaller} must be at most half of {larger}, but is {} of {}: {why}", .values.0, .values.1)]
    NotTogether {
        smaller: &'static str,
        larger: &'static str,
        values: (NonZeroDuration, NonZeroDuration),
        why: &'static str,
    },
}

impl SettingsError {
    /// Refuses two settings of which the first is more than half of the second.
    ///
    /// # Errors
    /// [`SettingsError::NotTogether`], which says why by `why`: what would happen otherwise.
    pub fn unless_at_most_half(
        (smaller, short): (&'static str, NonZeroDuration),
        (larger, long): (&'static str, NonZeroDuration),
        why: &'static str,
    ) -> Result<(), Self> {
        if short.get() <= long.get() / 2 {
            return Ok(());
        }
        Err(Self::NotTogether { smaller, larger, values: (short, long), why })
    }
}

/// Every setting of one program, with its default and its description.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// The text of the program's `config/default.toml`. It has a header for each section.
    pub own: &'static str,
    /// Sections that several programs have: a name, and the keys below it. `own` overrides their
    /// values and descriptions.
    pub shared: &'static [(&'static str, &'static str)],
    /// The variables of libpq that the program reads, each with the key that it sets.
    pub libpq: &'static [(&'static str, &'static str)],
}

/// What a process reads in addition to its defaults.
#[derive(Debug, Default)]
struct Overrides {
    file: Option<(PathBuf, String)>,
    variables: BTreeMap<OsString, OsString>,
}

#[derive(Debug)]
struct Setting {
    value: Value,
    origin: String,
}

/// Settings by dotted key.
type Settings = BTreeMap<String, Setting>;

impl Defaults {
    /// Reads the settings of this process.
    ///
    /// # Errors
    /// [`SettingsError`], which names the file or variable and the key.
    pub fn load<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        self.load_with(&Overrides::from_process()?)
    }

    /// The settings of this process as TOML, each with its origin. Passwords are redacted.
    ///
    /// # Errors
    /// [`SettingsError`], which names the file or variable and the key.
    pub fn print(&self) -> Result<String, SettingsError> {
        self.print_with(&Overrides::from_process()?)
    }

    fn load_with<T: DeserializeOwned>(&self, overrides: &Overrides) -> Result<T, SettingsError> {
        let settings = self.effective(overrides)?;
        let text = write(&settings, |_, setting| setting.value.clone());
        let refused = |key: String, message: &str| {
            let origin =
                settings.get(&key).map_or("default.toml", |setting| &setting.origin).to_owned();
            SettingsError::Refused { origin, key, reason: message.to_owned() }
        };
        let document = toml::Deserializer::parse(&text)
            .map_err(|error| refused(String::new(), error.message()))?;
        serde_path_to_error::deserialize(document)
            .map_err(|error| refused(error.path().to_string(), error.inner().message()))
    }

    fn print_with(&self, overrides: &Overrides) -> Result<String, SettingsError> {
        Ok(write(&self.effective(overrides)?, |name, setting| match &setting.value {
            Value::String(text) if name.ends_with("password") && !text.is_empty() => {
                REDACTED.into()
            }
            value => value.clone(),
        }))
    }

    /// Merges the layers.
    fn effective(&self, overrides: &Overrides) -> Result<Settings, SettingsError> {
        let mut settings = self.parse()?;
        if let Some((path, text)) = &overrides.file {
            for (key, value) in flatten(parse(path, text)?) {
                replace(&mut settings, key, &value, path.display().to_string())?;
            }
        }
        for (variable, key) in self.libpq {
            if let Some(value) = overrides.variables.get(OsStr::new(variable)) {
                replace(
                    &mut settings,
                    (*key).to_owned(),
                    &text(variable, value)?,
                    (*variable).to_owned(),
                )?;
            }
        }
        for (variable, value) in &overrides.variables {
            let Some(variable) = variable.to_str() else { continue };
            let Some(key) = variable.strip_prefix(PREFIX) else { continue };
            let key = key.to_lowercase().replace("__", ".");
            replace(&mut settings, key, &text(variable, value)?, variable.to_owned())?;
        }
        Ok(settings)
    }

    /// Parses the defaults.
    fn parse(&self) -> Result<Settings, SettingsError> {
        let parse = |text| Ok(flatten(parse(Path::new("default.toml"), text)?).into_iter());
        let mut values = BTreeMap::new();
        for (section, text) in self.shared {
            values.extend(parse(text)?.map(|(key, value)| (format!("{section}.{key}"), value)));
        }
        values.extend(parse(self.own)?.filter(|(_, value)| !value.is_table()));
        let setting = |(key, value)| (key, Setting { value, origin: "default".to_owned() });
        Ok(values.into_iter().map(setting).collect())
    }
}

impl Overrides {
    fn from_process() -> Result<Self, SettingsError> {
        let file = match std::env::var_os(FILE_VARIABLE).map(PathBuf::from) {
            None => None,
            Some(path) => match std::fs::read_to_string(&path) {
                Ok(text) => Some((path, text)),
                Err(source) => return Err(SettingsError::Unreadable { path, source }),
            },
        };
        Ok(Self { file, variables: std::env::vars_os().collect() })
    }
}

fn text(variable: &str, value: &OsStr) -> Result<Value, SettingsError> {
    value.to_str().map(Value::from).ok_or_else(|| SettingsError::NotUtf8(variable.to_owned()))
}

fn parse(path: &Path, text: &str) -> Result<Table, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        SettingsError::Malformed {
            path: path.to_owned(),
            line,
            message: error.message().to_owned(),
        }
    })
}

/// The values of a table by dotted key. An empty table counts as a value, so that a misspelt
/// section is noticed.
fn flatten(table: Table) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for (name, value) in table {
        match value {
            Value::Table(table) if !table.is_empty() => {
                let below = flatten(table).into_iter();
                values.extend(below.map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => {
                values.insert(name, value);
            }
        }
    }
    values
}

/// Settings as TOML, each with its origin as a comment.
fn write(settings: &Settings, value: impl Fn(&str, &Setting) -> Value) -> String {
    // By section, because TOML allows each table to be opened only once.
    let mut lines: Vec<(&str, &str, &Setting)> = settings
        .iter()
        .filter_map(|(key, setting)| {
            key.rsplit_once('.').map(|(section, name)| (section, name, setting))
        })
        .collect();
    lines.sort_unstable_by_key(|(section, name, _)| (*section, *name));
    let mut text = String::new();
    let mut open = "";
    for (section, name, setting) in lines {
        if open != section {
            let gap = if open.is_empty() { "" } else { "\n" };
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "{gap}[{section}]");
            open = section;
        }
        let _infallible = writeln!(text, "{name} = {}  # {}", value(name, setting), setting.origin);
    }
    text
}

/// Overrides one setting.
fn replace(
    settings: &mut Settings,
    key: String,
    value: &Value,
    origin: String,
) -> Result<(), SettingsError> {
    if let Some(setting) = settings.get_mut(&key) {
        return match convert(&setting.value, value) {
            Ok(value) => {
                *setting = Setting { value, origin };
                Ok(())
            }
            Err(expected) => Err(SettingsError::WrongType { origin, key, expected }),
        };
    }
    let below = format!("{key}.");
    if value.as_table().is_some_and(Table::is_empty)
        && settings.keys().any(|known| known.starts_with(&below))
    {
        return Ok(()); // The header of a section, with nothing below it.
    }
    // Jaro-Winkler favours a common beginning, as in `http.drain_seconds` for `http.drain`.
    let likeness = |known: &&String| strsim::jaro_winkler(&key, known);
    let nearest = settings.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let hint = nearest.map_or_else(String::new, |nearest| {
        let variable = format!("{PREFIX}{}", nearest.replace('.', "__").to_uppercase());
        format!("did you mean {nearest} ({variable})? `print-settings` lists all settings")
    });
    Err(SettingsError::Unknown { origin, key, hint })
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
        Value::String(default) if humantime::parse_duration(default).is_ok() => {
            text.map(Value::from).ok_or("a duration with its unit, such as \"250ms\" or \"5s\"")
        }
        _ => text.map(Value::from).ok_or("text"),
    }
}

#[cfg(test)]
mod tests;
