//! The settings of ingest-api.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use postgres_kit::settings::{DATABASE, DatabaseSettings, POOL, PoolSettings};
use serde::Deserialize;
use service_kit::settings::sections::{
    CORS, CorsSettings, HTTP, HttpSettings, INTERNAL, InternalSettings, LOG, LogSettings,
};
use service_kit::settings::{Defaults, NonZeroDuration, ProgramSettings, SettingsError, duration};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub http: HttpSettings,
    pub internal: InternalSettings,
    pub database: DatabaseSettings,
    pub pool: PoolSettings,
    pub read_pool: PoolSettings,
    pub limits: Limits,
    pub writes: WriteSettings,
    pub bulk: BulkLimits,
    pub schema: SchemaSettings,
    pub cors: CorsSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub max_request_body_bytes: usize,
    pub request_body_timeout: NonZeroDuration,
    pub body_idle_timeout: NonZeroDuration,
    pub query_timeout: NonZeroDuration,
    pub default_page_rows: NonZeroU32,
    pub max_page_rows: NonZeroU32,
    #[serde(deserialize_with = "duration")]
    pub max_ahead: Duration,
}

impl Limits {
    /// How long a statement that writes may wait for a lock. A row can wait for a few such times
    /// within its own limit: in its group, and then behind rows of that group that wait as well,
    /// when each is sent alone.
    #[must_use]
    pub fn lock_timeout(&self) -> Duration {
        self.query_timeout.get() / 4
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteSettings {
    pub writers: NonZeroUsize,
    pub max_group_rows: NonZeroUsize,
    pub max_queued_rows: NonZeroUsize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkLimits {
    pub max_concurrent_commits: NonZeroUsize,
    pub max_chunks_in_flight: NonZeroUsize,
    pub max_waiting_bytes: NonZeroUsize,
    pub max_zstd_uploads: NonZeroUsize,
    pub min_bytes_per_second: u32,
    pub max_line_bytes: NonZeroUsize,
    pub max_chunk_lines: NonZeroUsize,
    pub chunk_bytes: NonZeroUsize,
    pub chunk_timeout: NonZeroDuration,
    pub max_reported_errors: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaSettings {
    pub retry_delay: NonZeroDuration,
}

impl ProgramSettings for Settings {
    const DEFAULTS: Defaults = Defaults {
        own: include_str!("../config/default.toml"),
        shared: &[HTTP, INTERNAL, DATABASE, POOL, POOL.named("read_pool"), CORS, LOG],
        libpq: postgres_kit::settings::LIBPQ,
    };

    fn check(&self) -> Result<(), SettingsError> {
        for (name, pool) in [("pool", &self.pool), ("read_pool", &self.read_pool)] {
            let (connections, threads) = (pool.max_connections, self.http.workers);
            if connections < threads {
                return Err(SettingsError::Conflict(format!(
                    "{name}.max_connections must be at least http.workers, but is {connections} \
                     for {threads}: each thread that serves requests needs a connection"
                )));
            }
        }
        Ok(())
    }
}
