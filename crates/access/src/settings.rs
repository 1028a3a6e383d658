//! The settings of access.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use postgres_kit::settings::{DATABASE, DatabaseSettings, LIBPQ};
use serde::Deserialize;
use service_kit::settings::sections::{LOG, LogSettings};
use service_kit::settings::{Defaults, ProgramSettings, SettingsError};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub database: DatabaseSettings,
    pub link: LinkSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSettings {
    pub url: String,
}

impl ProgramSettings for Settings {
    const DEFAULTS: Defaults = Defaults {
        own: include_str!("../config/default.toml"),
        shared: &[DATABASE, LOG],
        libpq: LIBPQ,
    };

    fn check(&self) -> Result<(), SettingsError> {
        self.database.check()
    }
}
