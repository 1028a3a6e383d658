//! The settings of migrate.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use postgres_kit::settings::{DATABASE, DatabaseSettings};
use secrecy::SecretString;
use serde::Deserialize;
use service_kit::settings::sections::{LOG, LogSettings};
use service_kit::settings::{Defaults, ProgramSettings, SettingsError};

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
    pub access_password: SecretString,
    pub max_ingest_connections: u16,
    pub max_notifier_connections: u16,
    pub max_access_connections: u16,
}

impl ProgramSettings for Settings {
    const DEFAULTS: Defaults = Defaults {
        own: include_str!("../config/default.toml"),
        shared: &[DATABASE, LOG],
        libpq: &[
            ("PGHOST", "database.host"),
            ("PGPORT", "database.port"),
            ("PGDATABASE", "database.name"),
            ("PGUSER", "database.user"),
            ("PGPASSWORD", "database.password"),
            ("PGSSLMODE", "database.sslmode"),
            ("PGSSLROOTCERT", "database.sslrootcert"),
        ],
    };

    fn check(&self) -> Result<(), SettingsError> {
        self.database.check()?;
        self.database.refuse_pooler("a lock of the session keeps two migrations apart")
    }
}
