//! The settings of ingest-api.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use postgres_kit::settings::{DATABASE, DatabaseSettings, POOL, PoolSettings};
use serde::Deserialize;
use service_kit::command::ServiceSettings;
use service_kit::settings::sections::{
    HTTP, HttpSettings, INTERNAL, InternalSettings, LOG, LogSettings,
};
use service_kit::settings::{Defaults, NonZeroDuration, SettingsError, duration};

pub const DEFAULTS: Defaults = Defaults {
    own: include_str!("../config/default.toml"),
    shared: &[
        ("http", HTTP),
        ("internal", INTERNAL),
        ("database", DATABASE),
        ("pool", POOL),
        ("log", LOG),
    ],
    libpq: postgres_kit::settings::LIBPQ,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub http: HttpSettings,
    pub internal: InternalSettings,
    pub database: DatabaseSettings,
    pub pool: PoolSettings,
    pub limits: Limits,
    pub bulk: BulkLimits,
    pub schema: SchemaSettings,
    pub cors: CorsSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub connections_per_worker: NonZeroUsize,
    pub request_body_bytes: usize,
    pub request_body_timeout: NonZeroDuration,
    pub body_idle_timeout: NonZeroDuration,
    pub query_timeout: NonZeroDuration,
    pub page_rows_default: NonZeroU32,
    pub page_rows_max: NonZeroU32,
    #[serde(deserialize_with = "duration")]
    pub ahead: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkLimits {
    pub concurrent_uploads: NonZeroUsize,
    pub least_bytes_per_second: u32,
    pub line_bytes: NonZeroUsize,
    pub chunk_lines: NonZeroUsize,
    pub chunk_bytes: NonZeroUsize,
    pub chunk_timeout: NonZeroDuration,
    pub reported_errors: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaSettings {
    pub retry: NonZeroDuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsSettings {
    pub allowed_origins: String,
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
