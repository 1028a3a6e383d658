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
use std::fmt::Write as _;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use config::{Config, Environment, File, FileFormat, Value, ValueKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::server::Bounds;

/// Names the file of the second layer.
const FILE_VARIABLE: &str = "NEWCYCLE_CONFIG";

/// What is printed in the place of a password.
const REDACTED: &str = "<redacted>";

/// The settings could not be read: a value is missing, of a wrong type or of an unknown name.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A wrong type, or a file that cannot be read or parsed.
    #[error("the settings are not usable: {0}")]
    Unusable(#[from] config::ConfigError),
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
    /// An environment variable holds no UTF-8.
    #[error("the environment variable {0} is not UTF-8")]
    NotUtf8(&'static str),
}

/// All settings of one service, and where they come from.
#[derive(Debug, Clone, Copy)]
pub struct Layers {
    /// The text of its `config/default.toml`.
    pub defaults: &'static str,
    /// Its short variables, each with the key that it sets, as in `("INGEST_PORT", "http.port")`.
    pub variables: &'static [(&'static str, &'static str)],
}

/// One layer: what it sets, by dotted key.
struct Layer {
    values: BTreeMap<String, Value>,
    config: Config,
    kind: Kind,
}

enum Kind {
    Defaults,
    File(PathBuf),
    Variables,
    Environment,
}

impl Layers {
    /// Reads the settings from all layers.
    ///
    /// # Errors
    /// [`SettingsError`], naming the key or the variable.
    pub fn load<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        let layers = self.read()?;
        let merged =
            layers.into_iter().fold(Config::builder(), |merged, layer| merged.add_source(layer.config));
        Ok(merged.build()?.try_deserialize()?)
    }

    /// The settings in effect as TOML, each with its source; passwords are not shown.
    ///
    /// # Errors
    /// [`SettingsError`], naming the key or the variable.
    pub fn print(&self) -> Result<String, SettingsError> {
        let layers = self.read()?;
        let (mut text, mut section) = (String::new(), "");
        // A section at a time: a table may be opened but once.
        let mut settings: Vec<(&str, &str, &String)> = layers[0]
            .values
            .keys()
            .map(|key| key.rsplit_once('.').map_or(("", key.as_str(), key), |(of, name)| (of, name, key)))
            .collect();
        settings.sort_unstable();
        for (of, name, key) in settings {
            let default = &layers[0].values[key];
            if section != of {
                let gap = if section.is_empty() { "" } else { "\n" };
                // Writing to a string cannot fail.
                let _infallible = writeln!(text, "{gap}[{of}]");
                section = of;
            }
            let set = layers.iter().rev().find_map(|layer| Some((layer, layer.values.get(key)?)));
            let (value, source) = set.map_or_else(
                || (default.clone(), String::new()),
                |(layer, value)| (value.clone(), self.source(&layer.kind, key)),
            );
            let _infallible = writeln!(text, "{name} = {}  # {source}", shown(name, &value, default));
        }
        Ok(text)
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

    /// Reads each layer by itself, and refuses what the defaults do not name.
    fn read(&self) -> Result<Vec<Layer>, SettingsError> {
        let file = |text| File::from_str(text, FileFormat::Toml);
        let defaults = Config::builder().add_source(file(self.defaults)).build()?;
        let mut layers = vec![Layer::new(defaults, Kind::Defaults)];
        if let Some(path) = std::env::var_os(FILE_VARIABLE).map(PathBuf::from) {
            let source = File::from(path.as_path()).format(FileFormat::Toml);
            layers.push(Layer::new(Config::builder().add_source(source).build()?, Kind::File(path)));
        }
        let mut short = Config::builder();
        for (variable, key) in self.variables {
            match std::env::var(variable) {
                Ok(value) => short = short.set_override(*key, value)?,
                Err(std::env::VarError::NotPresent) => {}
                Err(std::env::VarError::NotUnicode(_)) => return Err(SettingsError::NotUtf8(variable)),
            }
        }
        layers.push(Layer::new(short.build()?, Kind::Variables));
        let environment = Environment::with_prefix("NEWCYCLE").prefix_separator("__").separator("__");
        layers.push(Layer::new(Config::builder().add_source(environment).build()?, Kind::Environment));
        let (defaults, later) = layers.split_at(1);
        for layer in later {
            if let Some(key) = layer.values.keys().find(|key| !defaults[0].values.contains_key(*key)) {
                let origin = self.source(&layer.kind, key);
                let hint = hint(key, defaults[0].values.keys());
                return Err(SettingsError::Unknown { origin, key: key.clone(), hint });
            }
        }
        Ok(layers)
    }

    /// What set a key, in words.
    fn source(&self, kind: &Kind, key: &str) -> String {
        match kind {
            Kind::Defaults => "default".to_owned(),
            Kind::File(path) => path.display().to_string(),
            Kind::Variables => self.short(key).unwrap_or_default().to_owned(),
            Kind::Environment => variable(key),
        }
    }
}

/// The long variable of a key.
fn variable(key: &str) -> String {
    format!("NEWCYCLE__{}", key.replace('.', "__").to_uppercase())
}

fn hint<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> String {
    let likeness = |known: &&String| strsim::damerau_levenshtein(key, known);
    let nearest = known.min_by_key(likeness);
    nearest.map_or_else(String::new, |nearest| {
        format!("is {nearest} (or {}) meant? `print-settings` lists all", variable(nearest))
    })
}

/// A value as TOML: as what the default is, for a variable is always a text.
fn shown(name: &str, value: &Value, default: &Value) -> String {
    let text = value.to_string();
    match default.kind {
        ValueKind::String(_) if name.ends_with("password") && !text.is_empty() => format!("{REDACTED:?}"),
        ValueKind::String(_) => format!("{text:?}"),
        _ => text,
    }
}

impl Layer {
    fn new(config: Config, kind: Kind) -> Self {
        let mut values = BTreeMap::new();
        flatten("", &config.cache, &mut values);
        Self { values, config, kind }
    }
}

/// Every value that is not a table, by its dotted key.
fn flatten(key: &str, value: &Value, values: &mut BTreeMap<String, Value>) {
    match &value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, values);
            }
        }
        _ => {
            values.insert(key.to_owned(), value.clone());
        }
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
    pub workers: NonZeroUsize,
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
