//! The settings of `migrate`; `config/default.toml` explains each.

use postgres_kit::database::DatabaseSettings;
use secrecy::SecretString;
use serde::Deserialize;
use service_kit::settings::{Layers, LogSettings, SettingsError};

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The database, and a superuser to migrate it as.
    pub database: DatabaseSettings,
    /// The services' roles.
    pub roles: RoleSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// The passwords that the services' roles get.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSettings {
    /// Of `newcycle_ingest`.
    pub ingest_password: SecretString,
    /// Of `newcycle_notifier`.
    pub notifier_password: SecretString,
}

/// Where the settings come from.
pub const LAYERS: Layers = Layers {
    defaults: include_str!("../config/default.toml"),
    variables: &[
        ("PGHOST", "database.host"),
        ("PGPORT", "database.port"),
        ("PGDATABASE", "database.name"),
        ("PGUSER", "database.user"),
        ("PGPASSWORD", "database.password"),
        ("INGEST_DATABASE_PASSWORD", "roles.ingest_password"),
        ("NOTIFIER_DATABASE_PASSWORD", "roles.notifier_password"),
    ],
};

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`SettingsError`], naming the setting that is wrong.
    pub fn load() -> Result<Self, SettingsError> {
        LAYERS.load()
    }
}
