//! The settings of migrate.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use postgres_kit::settings::{DATABASE, DatabaseSettings};
use secrecy::SecretString;
use serde::Deserialize;
use service_kit::settings::sections::{LOG, LogSettings};
use service_kit::settings::{Defaults, SettingsError};

pub const DEFAULTS: Defaults = Defaults {
    own: include_str!("../config/default.toml"),
    shared: &[("database", DATABASE), ("log", LOG)],
    libpq: &[
        ("PGHOST", "database.host"),
        ("PGPORT", "database.port"),
        ("PGDATABASE", "database.name"),
        ("PGUSER", "database.user"),
        ("PGPASSWORD", "database.password"),
    ],
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub database: DatabaseSettings,
    pub roles: RoleSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSettings {
    pub ingest_password: SecretString,
    pub notifier_password: SecretString,
}

impl Settings {
    /// Reads the settings of this process.
    ///
    /// # Errors
    /// [`SettingsError`], which names the setting.
    pub fn load() -> Result<Self, SettingsError> {
        DEFAULTS.load()
    }
}
