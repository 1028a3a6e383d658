//! The sections that several programs have. The files in `config/` describe each setting.
#![expect(missing_docs, reason = "the files in config/ describe each setting")]

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;

use super::{Count, NonZeroDuration, duration};
use crate::server::Bounds;

/// The keys of [`HttpSettings`].
pub const HTTP: &str = include_str!("../../config/http.toml");
/// The keys of [`InternalSettings`].
pub const INTERNAL: &str = include_str!("../../config/internal.toml");
/// The keys of [`LogSettings`].
pub const LOG: &str = include_str!("../../config/log.toml");

/// The most threads that a server can have, which is a limit of actix-server.
const WORKERS_MAX: usize = 512;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub host: String,
    pub port: u16,
    pub workers: Count<WORKERS_MAX>,
    #[serde(deserialize_with = "duration")]
    pub drain: Duration,
    pub idle_timeout: NonZeroDuration,
    pub unread_timeout: NonZeroDuration,
}

impl HttpSettings {
    /// The bounds of a server with at most this many connections per worker. It answers half-closed
    /// clients, and leaves the size of send buffers to the operating system.
    #[must_use]
    pub fn bounds(&self, connections_per_worker: usize) -> Bounds {
        Bounds {
            workers: self.workers.get(),
            connections_per_worker,
            idle: self.idle_timeout.get(),
            unread: self.unread_timeout.get(),
            unsent_bytes: None,
            answers_half_closed: true,
            drain: self.drain,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InternalSettings {
    pub host: String,
    pub port: u16,
    pub connections: NonZeroUsize,
    pub idle_timeout: NonZeroDuration,
    pub unread_timeout: NonZeroDuration,
}

impl InternalSettings {
    pub(crate) fn bounds(&self, drain: Duration) -> Bounds {
        Bounds {
            // Only health checks, metrics scrapers and other services use this port.
            workers: 1,
            connections_per_worker: self.connections.get(),
            idle: self.idle_timeout.get(),
            unread: self.unread_timeout.get(),
            unsent_bytes: None,
            answers_half_closed: false,
            drain,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}
