//! Settings: embedded defaults, then a file, then the environment; each overrides those before it.
//!
//! 1. the service's own `config/default.toml`, which names and explains every setting;
//! 2. the TOML file that `NEWCYCLE_CONFIG` names, where it is set;
//! 3. the service's short variables, such as `INGEST_PORT`;
//! 4. `NEWCYCLE__SECTION__KEY`, which reaches every setting.
//!
//! Invariant: the defaults name every setting, so whatever a later layer names beside them is a mistake, and is
//! refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, Map, Value, ValueKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::server::Bounds;

/// Names the file of the second layer.
const FILE_VARIABLE: &str = "NEWCYCLE_CONFIG";

/// How the variables begin that reach every setting, in lower case.
const PREFIX: &str = "newcycle__";

/// The largest number that a setting can be. More are a mistake, and would overflow where a time or a number of places
/// is made of them.
const NUMBER_MAX: i64 = 1 << 53;

/// The longest name for which one like it is looked for, and which is split into those within it: both take more room than
/// the name has.
const NAME_BYTES_MAX: usize = 200;

/// The most threads that a server can have, which is a bound of actix-server.
const WORKERS_MAX: usize = 512;

/// What is printed in the place of a password.
const REDACTED: &str = "<redacted>";

/// The settings could not be read: a value is missing, of a wrong type or of an unknown name.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value that a setting cannot have.
    #[error("the settings are not usable: {0}")]
    Unusable(#[from] config::ConfigError),
    /// A value of another kind than the setting's.
    #[error("{origin} sets {key} to what is not {expected}")]
    Kind {
        /// Who sets it: a file or a variable.
        origin: String,
        /// The key.
        key: String,
        /// What it would have to be.
        expected: &'static str,
    },
    /// The file of the second layer cannot be read.
    #[error("NEWCYCLE_CONFIG names {}, which cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file of the second layer is no TOML. The line is not shown, for it may be that of a password.
    #[error("{} is no TOML, in line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it is wrong, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// There is no such setting.
    #[error("{origin} sets {key}, but there is no such setting; {hint}")]
    Unknown {
        /// Who sets it: a file or a variable.
        origin: String,
        /// The key.
        key: String,
        /// What may be meant.
        hint: String,
    },
    /// Two settings that do not go together.
    #[error("{smaller} must be at most half of {larger}, but is {} of {}: {why}", .values.0, .values.1)]
    NotTogether {
        /// The key that is too large beside the other.
        smaller: &'static str,
        /// The key that is too small.
        larger: &'static str,
        /// Both values, in the unit that their names end in.
        values: (u64, u64),
        /// What would come of it.
        why: &'static str,
    },
    /// An environment variable holds no UTF-8.
    #[error("the environment variable {0} is not UTF-8")]
    NotUtf8(String),
}

/// Where a process finds what overrides its defaults.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The file of the second layer, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The environment variables, by name.
    pub variables: BTreeMap<OsString, OsString>,
}

impl Surroundings {
    /// Those of this process.
    ///
    /// # Errors
    /// [`SettingsError::Unreadable`]
    pub fn of_this_process() -> Result<Self, SettingsError> {
        let file = std::env::var_os(FILE_VARIABLE).map(PathBuf::from);
        let read = |path: PathBuf| match std::fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(source) => Err(SettingsError::Unreadable { path, source }),
        };
        Ok(Self { file: file.map(read).transpose()?, variables: std::env::vars_os().collect() })
    }
}

/// All settings of one service, and where they come from.
#[derive(Debug, Clone, Copy)]
pub struct Layers {
    /// The text of its `config/default.toml`.
    pub defaults: &'static str,
    /// Its short variables, each with the key that it sets, as in `("INGEST_PORT", "http.port")`.
    pub variables: &'static [(&'static str, &'static str)],
}

/// The settings of one service, whose defaults were read: for whoever reads its settings more than once.
#[derive(Debug)]
pub struct Known {
    defaults: BTreeMap<String, Value>,
    variables: &'static [(&'static str, &'static str)],
}

/// A later layer: what it sets, by dotted key.
struct Layer {
    values: BTreeMap<String, Value>,
    kind: Kind,
}

enum Kind {
    File(PathBuf),
    Variables,
}

impl Layers {
    /// Reads the settings from all layers, in the surroundings of this process.
    ///
    /// # Errors
    /// [`SettingsError`], naming the key or the variable.
    pub fn load<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        self.load_in(&Surroundings::of_this_process()?)
    }

    /// [`Layers::load`], in these surroundings.
    ///
    /// # Errors
    /// [`SettingsError`], naming the key or the variable.
    pub fn load_in<T: DeserializeOwned>(&self, surroundings: &Surroundings) -> Result<T, SettingsError> {
        self.known()?.load_in(surroundings)
    }

    /// The settings in effect as TOML, each with its source; passwords are not shown.
    ///
    /// # Errors
    /// [`SettingsError`], naming the key or the variable.
    pub fn print(&self) -> Result<String, SettingsError> {
        self.print_in(&Surroundings::of_this_process()?)
    }

    /// [`Layers::print`], in these surroundings.
    ///
    /// # Errors
    /// [`SettingsError`], naming the key or the variable.
    pub fn print_in(&self, surroundings: &Surroundings) -> Result<String, SettingsError> {
        self.known()?.print_in(surroundings)
    }

    /// Reads the defaults.
    ///
    /// # Errors
    /// Where they are no TOML.
    pub fn known(&self) -> Result<Known, SettingsError> {
        Ok(Known { defaults: parsed(Path::new("the defaults"), self.defaults)?, variables: self.variables })
    }

    /// Every setting with its default, its short variable and what it means, as Markdown: what the defaults say,
    /// so that the reference cannot say anything else.
    #[must_use]
    pub fn reference(&self) -> String {
        let (mut text, mut section, mut comment) = (String::new(), String::new(), String::new());
        for line in self.defaults.lines().map(str::trim) {
            if let Some(words) = line.strip_prefix('#') {
                comment.push_str(words);
            } else if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
                let gap = if text.is_empty() { "" } else { "\n" };
                let about = std::mem::take(&mut comment);
                let about = if about.is_empty() { about } else { format!("{}\n\n", about.trim()) };
                // Writing to a string cannot fail.
                let _infallible = write!(
                    text,
                    "{gap}### `{section}`\n\n{about}| setting | default | short variable | meaning |\n|---|---|---|---|\n"
                );
            } else if let Some((name, default)) = line.split_once(" = ") {
                let key = format!("{section}.{name}");
                let short = self.short(&key).map_or_else(String::new, |variable| format!("`{variable}`"));
                let meaning = std::mem::take(&mut comment).trim().replace('|', "\\|");
                let _infallible = writeln!(text, "| `{key}` | `{default}` | {short} | {meaning} |");
            }
        }
        text
    }

    fn short(&self, key: &str) -> Option<&'static str> {
        self.variables.iter().find(|(_, of)| *of == key).map(|(variable, _)| *variable)
    }
}

impl Known {
    /// [`Layers::load_in`].
    ///
    /// # Errors
    /// [`SettingsError`], naming the key or the variable.
    pub fn load_in<T: DeserializeOwned>(&self, surroundings: &Surroundings) -> Result<T, SettingsError> {
        let mut merged = self.defaults.clone();
        for layer in self.read(surroundings)? {
            merged.extend(layer.values);
        }
        let mut builder = Config::builder();
        for (key, value) in merged {
            builder = builder.set_override(key, value)?;
        }
        Ok(builder.build()?.try_deserialize()?)
    }

    /// [`Layers::print_in`].
    ///
    /// # Errors
    /// [`SettingsError`], naming the key or the variable.
    pub fn print_in(&self, surroundings: &Surroundings) -> Result<String, SettingsError> {
        let layers = self.read(surroundings)?;
        let (mut text, mut section) = (String::new(), "");
        // A section at a time: a table may be opened but once.
        let mut settings: Vec<(&str, &str, &String)> = self
            .defaults
            .keys()
            .map(|key| key.rsplit_once('.').map_or(("", key.as_str(), key), |(of, name)| (of, name, key)))
            .collect();
        settings.sort_unstable();
        for (of, name, key) in settings {
            let default = &self.defaults[key];
            if section != of {
                let gap = if section.is_empty() { "" } else { "\n" };
                // Writing to a string cannot fail.
                let _infallible = writeln!(text, "{gap}[{of}]");
                section = of;
            }
            let set = layers.iter().rev().find_map(|layer| Some((layer, layer.values.get(key)?)));
            let (value, source) = set.map_or_else(
                || (default.clone(), "default".to_owned()),
                |(layer, value)| (value.clone(), source(&layer.kind, value)),
            );
            let _infallible = writeln!(text, "{name} = {}  # {source}", shown(name, &value));
        }
        Ok(text)
    }

    /// Reads each later layer by itself, and refuses what the defaults do not name.
    ///
    /// Names are compared here and not left to `config`, which would take `port[9999999999]` for a place in a list, and
    /// make room for all of it.
    fn read(&self, surroundings: &Surroundings) -> Result<Vec<Layer>, SettingsError> {
        let mut layers = Vec::new();
        if let Some((path, text)) = &surroundings.file {
            layers.push(Layer { values: parsed(path, text)?, kind: Kind::File(path.clone()) });
        }
        let (mut short, mut long) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in &surroundings.variables {
            let Some(name) = name.to_str() else { continue };
            let of_short = self.variables.iter().find(|(variable, _)| *variable == name);
            let of_long = name.to_lowercase().strip_prefix(PREFIX).map(|key| key.replace("__", "."));
            let (key, layer) = match (of_short, of_long) {
                (Some((_, key)), _) => ((*key).to_owned(), &mut short),
                (None, Some(key)) => (key, &mut long),
                (None, None) => continue,
            };
            let text = value.to_str().ok_or_else(|| SettingsError::NotUtf8(name.to_owned()))?;
            layer.insert(key, Value::new(Some(&name.to_owned()), ValueKind::String(text.to_owned())));
        }
        layers.push(Layer { values: short, kind: Kind::Variables });
        layers.push(Layer { values: long, kind: Kind::Variables });
        let known = &self.defaults;
        for Layer { values, kind } in &mut layers {
            values.retain(|key, value| !is_empty_section(key, value, known));
            for (key, value) in values {
                let origin = source(kind, value);
                let Some(default) = known.get(key) else {
                    let hint = hint(key, known.keys());
                    return Err(SettingsError::Unknown { origin, key: key.clone(), hint });
                };
                value.kind = as_kind_of(&default.kind, value.clone())
                    .map_err(|expected| SettingsError::Kind { origin, key: key.clone(), expected })?;
            }
        }
        Ok(layers)
    }
}

/// What set a value, in words.
fn source(kind: &Kind, value: &Value) -> String {
    match kind {
        Kind::File(path) => path.display().to_string(),
        // The variable as it is called: the key does not tell, for `newcycle__http.port` sets the same.
        Kind::Variables => value.origin().unwrap_or_default().to_owned(),
    }
}

/// The long variable of a key.
fn variable(key: &str) -> String {
    format!("NEWCYCLE__{}", key.replace('.', "__").to_uppercase())
}

fn hint<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> String {
    if key.len() > NAME_BYTES_MAX {
        return "`print-settings` lists all".to_owned();
    }
    let likeness = |known: &&String| strsim::damerau_levenshtein(key, known);
    let nearest = known.min_by_key(likeness);
    nearest.map_or_else(String::new, |nearest| {
        format!("is {nearest} (or {}) meant? `print-settings` lists all", variable(nearest))
    })
}

/// What a text of TOML sets, by dotted key.
fn parsed(path: &Path, text: &str) -> Result<BTreeMap<String, Value>, SettingsError> {
    let table: Map<String, Value> = toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        SettingsError::Malformed { path: path.to_owned(), line, message: error.message().to_owned() }
    })?;
    let mut values = BTreeMap::new();
    for (name, value) in &table {
        flatten(name, value, &mut values);
    }
    Ok(values)
}

/// Every value that is not a table, by its dotted key; and every table that has nothing in it, or whose name is too long to
/// be written before each of its own: there is no such setting anyway.
fn flatten(key: &str, value: &Value, values: &mut BTreeMap<String, Value>) {
    match &value.kind {
        ValueKind::Table(table) if !table.is_empty() && key.len() <= NAME_BYTES_MAX => {
            for (name, value) in table {
                flatten(&format!("{key}.{name}"), value, values);
            }
        }
        _ => {
            values.insert(key.to_owned(), value.clone());
        }
    }
}

/// Whether this is a section that there is, with nothing in it, which says nothing.
fn is_empty_section(key: &str, value: &Value, known: &BTreeMap<String, Value>) -> bool {
    let within = |known: &String| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    matches!(&value.kind, ValueKind::Table(table) if table.is_empty()) && known.keys().any(within)
}

/// The value as what the default is, for a variable is always a text; or what it would have to be.
fn as_kind_of(default: &ValueKind, value: Value) -> Result<ValueKind, &'static str> {
    if matches!(default, ValueKind::Boolean(_)) {
        return value.into_bool().map(ValueKind::Boolean).map_err(|_| "true or false");
    }
    if !matches!(default, ValueKind::I64(_)) {
        return match value.kind {
            kind @ ValueKind::String(_) => Ok(kind),
            _ => Err("a text"),
        };
    }
    let number = match value.kind {
        ValueKind::I64(number) => Some(number),
        ValueKind::String(text) => text.parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| (0..=NUMBER_MAX).contains(number));
    number.map(ValueKind::I64).ok_or("a whole number from 0 to 9007199254740992")
}

/// A value as TOML.
fn shown(name: &str, value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) if name.ends_with("password") && !text.is_empty() => quoted(REDACTED),
        ValueKind::String(text) => quoted(text),
        _ => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // Writing to a string cannot fail.
            _ if character.is_control() => {
                let _infallible = write!(quoted, "\\u{:04X}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// How many there are of what room or threads are taken for at the start, from 1 to `MAX`. With too many, the process
/// would end there without a word of the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Count<const MAX: usize>(NonZeroUsize);

impl<const MAX: usize> Count<MAX> {
    /// The number.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0.get()
    }
}

impl<const MAX: usize> TryFrom<u64> for Count<MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        let count = usize::try_from(number).ok().filter(|count| *count <= MAX).and_then(NonZeroUsize::new);
        count.map(Self).ok_or_else(|| format!("{number} is not from 1 to {MAX}"))
    }
}

/// Where a service listens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// Threads that serve requests.
    pub workers: Count<WORKERS_MAX>,
    /// How long open requests and streams may take to end after SIGTERM.
    pub drain_seconds: u64,
    /// How long a connection may have no request under way.
    pub idle_timeout_milliseconds: NonZeroU64,
    /// How long a client may take nothing of what it is sent, on Linux.
    pub unread_timeout_milliseconds: NonZeroU64,
}

impl HttpSettings {
    /// What bounds a server of these settings that takes so many connections, answers clients that are half closed,
    /// and lets the operating system keep of an answer what it likes.
    #[must_use]
    pub fn bounds(&self, connections_per_worker: usize) -> Bounds {
        Bounds {
            workers: self.workers.get(),
            connections_per_worker,
            idle: Duration::from_millis(self.idle_timeout_milliseconds.get()),
            unread: Duration::from_millis(self.unread_timeout_milliseconds.get()),
            unsent_bytes: None,
            answers_half_closed: true,
            drain_seconds: self.drain_seconds,
        }
    }
}

/// Where a service is looked after: its health, its metrics, and what only other services may ask.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InternalSettings {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// Connections at a time.
    pub connections: NonZeroUsize,
    /// How long a connection may have no request under way.
    pub idle_timeout_milliseconds: NonZeroU64,
    /// How long a client may take nothing of what it is sent, on Linux.
    pub unread_timeout_milliseconds: NonZeroU64,
}

impl InternalSettings {
    /// What bounds the server.
    #[must_use]
    pub(crate) fn bounds(&self, drain_seconds: u64) -> Bounds {
        Bounds {
            // Whoever looks after a service is few.
            workers: 1,
            connections_per_worker: self.connections.get(),
            idle: Duration::from_millis(self.idle_timeout_milliseconds.get()),
            unread: Duration::from_millis(self.unread_timeout_milliseconds.get()),
            unsent_bytes: None,
            answers_half_closed: false,
            drain_seconds,
        }
    }
}

/// What a service logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// Directives of `tracing_subscriber`'s `EnvFilter`, such as `info,stats_notifier=debug`.
    pub filter: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
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
        password: secrecy::SecretString,
    }

    const LAYERS: Layers = Layers {
        defaults: "# Where requests are taken.\n[http]\nhost = \"127.0.0.1\"\n# 0 takes a free one.\nport = 1\n\
                   workers = 2\ndrain_seconds = 3\nidle_timeout_milliseconds = 4\n\
                   unread_timeout_milliseconds = 5\n\n[database]\npassword = \"secret\"\n",
        variables: &[("NEWCYCLE_TEST_NOT_SET", "http.port"), ("PATH", "http.host")],
    };

    #[test]
    fn later_layers_override_the_defaults() {
        let settings: Example = LAYERS.load().unwrap();
        assert_eq!(settings.http.port, 1);
        assert_eq!(settings.http.host, std::env::var("PATH").unwrap());
        assert!(!format!("{:?}", settings.database.password).contains("secret"));
    }

    #[test]
    fn every_setting_is_printed_with_its_source_and_passwords_are_not() {
        let text = LAYERS.print().unwrap();
        assert!(text.contains("[http]\ndrain_seconds = 3  # default\nhost = "), "{text}");
        // As TOML: a file that NEWCYCLE_CONFIG may name.
        let nested = Layers { defaults: "[a]\nz = 1\n[a.b]\nc = 2\n", variables: &[] }.print().unwrap();
        assert_eq!(nested, "[a]\nz = 1  # default\n\n[a.b]\nc = 2  # default\n");
        assert!(
            text.contains("  # PATH\nidle_timeout_milliseconds = 4  # default\nport = 1  # default\n"),
            "{text}"
        );
        assert!(
            text.contains("password = \"<redacted>\"  # default\n") && !text.contains("secret"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_what_may_be_meant() {
        let layers = Layers { variables: &[("PATH", "http.prot")], ..LAYERS };
        let message = layers.load::<Example>().unwrap_err().to_string();
        assert!(message.starts_with("PATH sets http.prot, but there is no such setting"), "{message}");
        assert!(message.contains("is http.port (or NEWCYCLE__HTTP__PORT) meant?"), "{message}");
        let layers = Layers { variables: &[("PATH", "http")], ..LAYERS };
        assert!(layers.load::<Example>().unwrap_err().to_string().contains("no such setting"));
    }

    fn with_variable(name: &str, value: &str) -> Surroundings {
        let variables = [(OsString::from(name), OsString::from(value))].into();
        Surroundings { variables, ..Surroundings::default() }
    }

    fn with_file(text: &str) -> Surroundings {
        Surroundings { file: Some(("a.toml".into(), text.to_owned())), ..Surroundings::default() }
    }

    fn error(surroundings: &Surroundings) -> String {
        LAYERS.load_in::<Example>(surroundings).unwrap_err().to_string()
    }

    #[test]
    fn a_name_is_never_taken_for_a_place_in_a_list() {
        let variable = error(&with_variable("NEWCYCLE__HTTP[9999999999999]", "1"));
        assert!(variable.contains("sets http[9999999999999], but there is no such setting"), "{variable}");
        let file = error(&with_file("[http]\n\"port[9999999999999]\" = 1\n"));
        assert!(file.starts_with("a.toml sets http.port[9999999999999], but"), "{file}");
    }

    #[test]
    fn a_long_name_costs_no_more_room_than_it_has() {
        // Beside each name that there is, this one would take hundreds of megabytes.
        let long = "x".repeat(1 << 20);
        let variable = error(&with_variable(&format!("NEWCYCLE__{long}"), "1"));
        assert!(variable.ends_with("x, but there is no such setting; `print-settings` lists all"));
        // And this one before each of its own, as many gigabytes.
        let file = error(&with_file(&format!(
            "[{long}]\n{}",
            (0..20_000).fold(String::new(), |text, number| { text + &format!("a{number} = 1\n") })
        )));
        assert!(file.ends_with("x, but there is no such setting; `print-settings` lists all"));
    }

    #[test]
    fn a_variable_is_named_as_it_is_called() {
        for name in ["NEWCYCLE__HTTP__PORT", "newcycle__http__port", "NEWCYCLE__HTTP.PORT", "NEWCYCLE__ſ"] {
            let error = error(&with_variable(name, "x"));
            assert!(error.starts_with(&format!("{name} sets ")), "{name}: {error}");
        }
    }

    #[test]
    fn a_count_that_no_room_can_be_made_for_is_refused() {
        #[derive(Debug, Deserialize)]
        struct Counts {
            http: HttpSettings,
            pool: Pool,
        }
        #[derive(Debug, Deserialize)]
        struct Pool {
            connections: Count<10_000>,
        }
        let pool = "[pool]\nconnections = 16\n";
        let layers = Layers { defaults: format!("{}{pool}", LAYERS.defaults).leak(), variables: &[] };
        let with = |name: &str, value: &str| layers.load_in::<Counts>(&with_variable(name, value));
        assert_eq!(with("NEWCYCLE__HTTP__WORKERS", "512").unwrap().http.workers.get(), 512);
        assert_eq!(with("NEWCYCLE__POOL__CONNECTIONS", "10000").unwrap().pool.connections.get(), 10_000);
        for (key, most) in [("http.workers", 512), ("pool.connections", 10_000)] {
            for wrong in [0, most + 1, NUMBER_MAX] {
                let error = with(&variable(key), &wrong.to_string()).map(|_| ()).unwrap_err().to_string();
                let expected = format!("{wrong} is not from 1 to {most} for key `{key}`");
                assert!(error.contains(&expected), "{error}");
            }
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_who_sets_it() {
        let names = "NEWCYCLE__HTTP__PORT sets http.port to what is not a whole number";
        for wrong in ["abc", "yes", "-1", "1.5", "", "9223372036854775807"] {
            let error = error(&with_variable("NEWCYCLE__HTTP__PORT", wrong));
            assert!(error.starts_with(names), "{wrong:?}: {error}");
        }
        assert!(error(&with_file("[http]\nport = true\n")).starts_with("a.toml sets http.port to what"));
        assert!(error(&with_file("[http.port]\n")).starts_with("a.toml sets http.port to what"));
        assert!(error(&with_file("http = 3\n")).starts_with("a.toml sets http, but"));
        assert!(error(&with_file("[htpp]\n")).starts_with("a.toml sets htpp, but"));
        LAYERS.load_in::<Example>(&with_file("[http]\n")).unwrap();
    }

    #[test]
    fn a_file_that_is_no_toml_is_named_without_what_it_says() {
        let error = error(&with_file("[database]\npassword = \"hunter2\n"));
        assert!(error.starts_with("a.toml is no TOML, in line 2: ") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let odd = "a \"b\" \\ \n\t\u{1}\u{7f}é";
        let printed = LAYERS.print_in(&with_variable("NEWCYCLE__HTTP__HOST", odd)).unwrap();
        let again: Example = LAYERS.load_in(&with_file(&printed)).unwrap();
        assert_eq!(again.http.host, odd);
        let switch = Layers { defaults: "[a]\nb = true\n", variables: &[] };
        let printed = switch.print_in(&with_variable("NEWCYCLE__A__B", "off")).unwrap();
        assert_eq!(printed, "[a]\nb = false  # NEWCYCLE__A__B\n");
    }

    #[test]
    fn the_reference_has_every_setting() {
        let text = LAYERS.reference();
        assert!(text.starts_with("### `http`\n\nWhere requests are taken.\n\n| setting |"), "{text}");
        assert!(
            text.contains("| `http.port` | `1` | `NEWCYCLE_TEST_NOT_SET` | 0 takes a free one. |\n"),
            "{text}"
        );
        assert!(text.contains("### `database`\n\n| setting |"), "{text}");
    }
}
