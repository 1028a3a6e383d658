//! The settings of dashboard.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use std::num::NonZeroUsize;

use serde::Deserialize;
use service_kit::command::ServiceSettings;
use service_kit::settings::sections::{
    HTTP, HttpSettings, INTERNAL, InternalSettings, LOG, LogSettings,
};
use service_kit::settings::{Defaults, SettingsError};

pub const DEFAULTS: Defaults = Defaults {
    own: include_str!("../config/default.toml"),
    shared: &[("http", HTTP), ("internal", INTERNAL), ("log", LOG)],
    libpq: &[],
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub http: HttpSettings,
    pub internal: InternalSettings,
    pub limits: Limits,
    pub services: ServicesSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub connections_per_worker: NonZeroUsize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicesSettings {
    pub gateway_url: String,
    pub gateway_port: u16,
    pub ingest_url: String,
    pub ingest_port: u16,
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

impl ServiceSettings for Settings {
    fn internal(&self) -> &InternalSettings {
        &self.internal
    }

    fn log(&self) -> &LogSettings {
        &self.log
    }
}
