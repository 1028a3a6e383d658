//! The settings of ingest-api.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use access_kit::settings::{ACCESS, AccessSettings};
use postgres_kit::settings::{DATABASE, DatabaseSettings, POOL, PoolSettings};
use serde::Deserialize;
use service_kit::settings::sections::{
    CORS, CorsSettings, HTTP, HttpSettings, INTERNAL, InternalSettings, LOG, LogSettings,
};
use service_kit::settings::{Defaults, NonZeroDuration, ProgramSettings, SettingsError, duration};

use crate::encoding::{ContentCoding, PART_BYTES};
use crate::report::LINE_ERROR_BYTES;

/// The tables whose rows are written in groups.
const TABLES: usize = 4;

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
    pub access: AccessSettings,
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
    /// when each is sent alone. A lone row waits again.
    #[must_use]
    pub fn lock_timeout(&self) -> Duration {
        // Postgres rounds down to milliseconds, and has no limit if this is 0.
        (self.query_timeout.get() / 4).max(Duration::from_millis(1))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteSettings {
    pub max_extra_writers: usize,
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
        self.max_concurrent_commits.get() / threads
    }

    /// The part of [`Self::max_waiting_bytes`] that is not for rows, but for bodies that are
    /// arriving.
    pub(crate) const fn body_bytes(&self) -> usize {
        self.max_waiting_bytes.get() / 2
    }

    /// How many uploads there can be at the same time.
    pub(crate) const fn max_uploads(&self) -> usize {
        self.body_bytes() / self.bytes_per_upload()
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
        shared: &[HTTP, INTERNAL, DATABASE, POOL, POOL.named("read_pool"), CORS, ACCESS, LOG],
        libpq: postgres_kit::settings::LIBPQ,
    };

    /// Single rows must not wait for uploads or for rows of other tables, so each thread needs a
    /// connection for each chunk that it may commit, for each table, and for each extra writer.
    ///
    /// The memory for bodies must be enough for one upload, because all would be refused otherwise.
    fn check(&self) -> Result<(), SettingsError> {
        self.access.check(&[("http.host", &self.http.host)])?;
        self.database.check()?;
        let threads = self.http.workers;
        let connections = self.read_pool.max_connections;
        if connections < threads {
            return Err(SettingsError::Conflict(format!(
                "read_pool.max_connections must be at least http.workers, but is {connections} for \
                 {threads}: each thread that serves requests needs a connection"
            )));
        }
        if self.bulk.max_concurrent_commits < threads {
            return Err(SettingsError::Conflict(format!(
                "bulk.max_concurrent_commits must be at least http.workers, but is {} for {threads}",
                self.bulk.max_concurrent_commits
            )));
        }
        let commits = self.bulk.commits_of_each(threads);
        let extra = self.writes.max_extra_writers;
        let of_each = commits.saturating_add(TABLES).saturating_add(extra);
        let needed = of_each.saturating_mul(threads.get());
        if self.pool.max_connections.get() < needed {
            return Err(SettingsError::Conflict(format!(
                "pool.max_connections must be at least {needed}, but is {}: each of the {threads} \
                 threads of http.workers needs {TABLES} for single rows, {extra} for \
                 writes.max_extra_writers, and {commits} for its share of \
                 bulk.max_concurrent_commits",
                self.pool.max_connections
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
    fn a_thread_that_has_too_few_connections_is_refused() {
        let mut settings = Settings::load().unwrap();
        settings.http.workers = NonZeroUsize::new(3).unwrap();
        settings.writes.max_extra_writers = 1;
        settings.bulk.max_concurrent_commits = NonZeroUsize::new(8).unwrap();
        settings.pool.max_connections = NonZeroUsize::new(20).unwrap();
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "pool.max_connections must be at least 21, but is 20: each of the 3 threads of \
             http.workers needs 4 for single rows, 1 for writes.max_extra_writers, and 2 for its \
             share of bulk.max_concurrent_commits"
        );
        settings.pool.max_connections = NonZeroUsize::new(21).unwrap();
        settings.check().unwrap();
        settings.read_pool.max_connections = NonZeroUsize::new(2).unwrap();
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "read_pool.max_connections must be at least http.workers, but is 2 for 3: each thread \
             that serves requests needs a connection"
        );
        settings.read_pool.max_connections = NonZeroUsize::new(3).unwrap();
        settings.bulk.max_concurrent_commits = NonZeroUsize::new(2).unwrap();
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "bulk.max_concurrent_commits must be at least http.workers, but is 2 for 3"
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
