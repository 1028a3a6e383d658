//! Settings: embedded defaults, then a file, then the environment; each overrides those before it.
//!
//! 1. the service's own `config/default.toml`, which names and explains every setting;
//! 2. the TOML file that `NEWCYCLE_CONFIG` names, where it is set;
//! 3. the service's short variables, such as `INGEST_PORT`;
//! 4. `NEWCYCLE__SECTION__KEY`, which reaches every setting.

use std::path::PathBuf;

use config::{Config, Environment, File, FileFormat};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The settings could not be read: a value is missing, of a wrong type or of an unknown name.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// An unknown key, a wrong type, or a file that cannot be read or parsed.
    #[error("the settings are not usable: {0}")]
    Unusable(#[from] config::ConfigError),
    /// An environment variable holds no UTF-8.
    #[error("the environment variable {0} is not UTF-8")]
    NotUtf8(&'static str),
}

/// Reads the settings of a service. `short` pairs the name of an environment variable with the key that it
/// sets, as in `("INGEST_PORT", "http.port")`.
///
/// # Errors
/// [`SettingsError`], naming the key or the variable.
pub fn load<T: DeserializeOwned>(
    defaults: &str,
    short: &[(&'static str, &'static str)],
) -> Result<T, SettingsError> {
    let mut builder = Config::builder().add_source(File::from_str(defaults, FileFormat::Toml));
    if let Some(path) = std::env::var_os("NEWCYCLE_CONFIG") {
        builder = builder.add_source(File::from(PathBuf::from(path)).format(FileFormat::Toml));
    }
    let mut variables = Config::builder();
    for (variable, key) in short {
        match std::env::var(variable) {
            Ok(value) => variables = variables.set_override(*key, value)?,
            Err(std::env::VarError::NotPresent) => {}
            Err(std::env::VarError::NotUnicode(_)) => return Err(SettingsError::NotUtf8(variable)),
        }
    }
    let environment = Environment::with_prefix("NEWCYCLE").prefix_separator("__").separator("__");
    let settings = builder.add_source(variables.build()?).add_source(environment).build()?;
    Ok(settings.try_deserialize()?)
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
    pub workers: std::num::NonZeroUsize,
    /// How long open requests and streams may take to end after SIGTERM.
    pub drain_seconds: u64,
}

/// What a service logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// Directives of `tracing_subscriber`'s `EnvFilter`, such as `info,stats_notifier=debug`.
    pub filter: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        http: HttpSettings,
    }

    const DEFAULTS: &str = "[http]\nhost = \"127.0.0.1\"\nport = 1\nworkers = 2\ndrain_seconds = 3\n";

    #[test]
    fn defaults_alone_are_enough() {
        let settings: Example = load(DEFAULTS, &[("NEWCYCLE_TEST_NOT_SET", "http.port")]).unwrap();
        assert_eq!(settings.http.port, 1);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = load::<Example>(&format!("{DEFAULTS}speed = 9"), &[]).unwrap_err();
        assert!(error.to_string().contains("speed"), "{error}");
    }
}
