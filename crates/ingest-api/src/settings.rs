//! The settings of ingest-api; `config/default.toml` explains each.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use postgres_kit::database::{DatabaseSettings, PoolSettings};
use serde::Deserialize;
use service_kit::settings::{HttpSettings, InternalSettings, Layers, LogSettings, SettingsError};

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where requests are taken.
    pub http: HttpSettings,
    /// Where it is looked after.
    pub internal: InternalSettings,
    /// The database that events are written to.
    pub database: DatabaseSettings,
    /// The connections to it.
    pub pool: PoolSettings,
    /// What bounds each request.
    pub limits: Limits,
    /// What bounds uploads of many rows.
    pub bulk: BulkLimits,
    /// How the schema is checked.
    pub schema: SchemaSettings,
    /// Who may send requests from a browser.
    pub cors: CorsSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// What bounds each request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections of clients to one worker.
    pub connections_per_worker: NonZeroUsize,
    /// The longest body of a request for a single row.
    pub request_body_bytes: usize,
    /// How long the body of a request for a single row may take to come.
    pub request_body_timeout_milliseconds: u64,
    /// How long a client may send nothing while its body is incomplete.
    pub body_idle_timeout_milliseconds: u64,
    /// How long a request for a single row or a page may take in the database, the wait for a connection included.
    pub query_timeout_milliseconds: u64,
    /// Rows of a page where the client asks for no other number.
    pub page_rows_default: NonZeroU32,
    /// Rows of a page at most.
    pub page_rows_max: NonZeroU32,
    /// How far the time of an event may lie ahead of the clock.
    pub ahead_seconds: u32,
}

impl Limits {
    /// [`Limits::request_body_timeout_milliseconds`].
    #[must_use]
    pub const fn request_body_timeout(&self) -> Duration {
        Duration::from_millis(self.request_body_timeout_milliseconds)
    }

    /// [`Limits::body_idle_timeout_milliseconds`].
    #[must_use]
    pub const fn body_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.body_idle_timeout_milliseconds)
    }

    /// [`Limits::query_timeout_milliseconds`].
    #[must_use]
    pub const fn query_timeout(&self) -> Duration {
        Duration::from_millis(self.query_timeout_milliseconds)
    }
}

/// What bounds uploads of many rows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkLimits {
    /// Uploads at a time.
    pub concurrent_uploads: NonZeroUsize,
    /// How slowly an upload may come.
    pub least_bytes_per_second: u32,
    /// The longest line.
    pub line_bytes: NonZeroUsize,
    /// Lines committed at a time.
    pub chunk_lines: NonZeroUsize,
    /// Bytes committed at a time, give or take a line.
    pub chunk_bytes: NonZeroUsize,
    /// How long a chunk may take in the database, the wait for a connection included.
    pub chunk_timeout_milliseconds: u64,
    /// Rejected lines that an answer names.
    pub reported_errors: usize,
}

impl BulkLimits {
    /// [`BulkLimits::chunk_timeout_milliseconds`].
    #[must_use]
    pub const fn chunk_timeout(&self) -> Duration {
        Duration::from_millis(self.chunk_timeout_milliseconds)
    }
}

/// How the schema is checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaSettings {
    /// How often a database that was down at the start is asked again.
    pub retry_milliseconds: u64,
}

impl SchemaSettings {
    /// [`SchemaSettings::retry_milliseconds`].
    #[must_use]
    pub const fn retry(&self) -> Duration {
        Duration::from_millis(self.retry_milliseconds)
    }
}

/// Who may send requests from a browser.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsSettings {
    /// Origins, separated by commas: a single string, so that one environment variable can set it.
    pub allowed_origins: String,
}

impl CorsSettings {
    /// The origins, one by one.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.allowed_origins.split(',').map(str::trim).filter(|origin| !origin.is_empty())
    }
}

/// Where the settings come from.
pub const LAYERS: Layers = Layers {
    defaults: include_str!("../config/default.toml"),
    variables: &[
        ("INGEST_PORT", "http.port"),
        ("INGEST_INTERNAL_PORT", "internal.port"),
        ("PGHOST", "database.host"),
        ("PGPORT", "database.port"),
        ("PGDATABASE", "database.name"),
        ("INGEST_DATABASE_PASSWORD", "database.password"),
        ("INGEST_ALLOWED_ORIGINS", "cors.allowed_origins"),
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
