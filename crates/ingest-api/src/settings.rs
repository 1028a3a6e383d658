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

use crate::encoding::{ContentCoding, PART_BYTES};
use crate::report::LINE_ERROR_BYTES;

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

impl BulkLimits {
    /// The number of chunks that each of `threads` threads may commit at the same time.
    pub(crate) fn commits_of_each(&self, threads: NonZeroUsize) -> usize {
        (self.max_concurrent_commits.get() / threads).max(1)
    }

    /// The part of [`Self::max_waiting_bytes`] that is not for rows, but for bodies that are
    /// arriving.
    pub(crate) const fn body_bytes(&self) -> usize {
        self.max_waiting_bytes.get() / 2
    }

    /// The memory that an upload needs apart from its rows and its decoder: the beginning of a line
    /// and a part of the body, in a buffer that may grow by doubling, and the errors for its
    /// answer.
    pub(crate) const fn bytes_per_upload(&self) -> usize {
        let line = self.max_line_bytes.get().saturating_add(PART_BYTES).saturating_mul(2);
        line.saturating_add(self.max_reported_errors.saturating_mul(LINE_ERROR_BYTES))
    }
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

    /// A chunk of an upload needs a connection only while it has a place to commit. So single rows
    /// never wait for uploads if each thread has more connections than such places.
    ///
    /// The memory for bodies must be enough for one upload, because all would be refused otherwise.
    fn check(&self) -> Result<(), SettingsError> {
        let threads = self.http.workers;
        for (name, pool) in [("pool", &self.pool), ("read_pool", &self.read_pool)] {
            let connections = pool.max_connections;
            if connections < threads {
                return Err(SettingsError::Conflict(format!(
                    "{name}.max_connections must be at least http.workers, but is {connections} \
                     for {threads}: each thread that serves requests needs a connection"
                )));
            }
        }
        let connections = self.pool.max_connections.get() / threads;
        let commits = self.bulk.commits_of_each(threads);
        if commits >= connections {
            return Err(SettingsError::Conflict(format!(
                "bulk.max_concurrent_commits must leave connections of pool.max_connections, but \
                 each of the {threads} threads of http.workers has {connections} connections, and \
                 uploads may take {commits} of them: single rows would wait for uploads"
            )));
        }
        let decoder = ContentCoding::Zstd.decoder_bytes();
        let needed = self.bulk.bytes_per_upload().saturating_add(decoder);
        if needed > self.bulk.body_bytes() {
            return Err(SettingsError::Conflict(format!(
                "bulk.max_waiting_bytes must be at least {}, but is {}: with bulk.max_line_bytes \
                 and bulk.max_reported_errors as they are, no upload would be accepted",
                needed.saturating_mul(2),
                self.bulk.max_waiting_bytes
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_that_could_take_the_connections_of_single_rows_are_refused() {
        let mut settings = Settings::load().unwrap();
        settings.http.workers = NonZeroUsize::new(2).unwrap();
        settings.pool.max_connections = NonZeroUsize::new(9).unwrap();
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "bulk.max_concurrent_commits must leave connections of pool.max_connections, but each \
             of the 2 threads of http.workers has 4 connections, and uploads may take 4 of them: \
             single rows would wait for uploads"
        );
        settings.bulk.max_concurrent_commits = NonZeroUsize::new(7).unwrap();
        settings.check().unwrap();
    }

    #[test]
    fn a_thread_without_a_connection_is_refused() {
        let mut settings = Settings::load().unwrap();
        settings.http.workers = NonZeroUsize::new(3).unwrap();
        settings.read_pool.max_connections = NonZeroUsize::new(2).unwrap();
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "read_pool.max_connections must be at least http.workers, but is 2 for 3: each thread \
             that serves requests needs a connection"
        );
    }

    #[test]
    fn a_memory_that_is_too_small_for_one_upload_is_refused() {
        let mut settings = Settings::load().unwrap();
        settings.bulk.max_line_bytes = NonZeroUsize::new(934_464).unwrap();
        settings.bulk.max_reported_errors = 0;
        settings.bulk.max_waiting_bytes = NonZeroUsize::new(4_786_431).unwrap();
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "bulk.max_waiting_bytes must be at least 4786432, but is 4786431: with \
             bulk.max_line_bytes and bulk.max_reported_errors as they are, no upload would be accepted"
        );
        settings.bulk.max_waiting_bytes = NonZeroUsize::new(4_786_432).unwrap();
        settings.check().unwrap();
    }
}
