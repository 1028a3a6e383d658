//! The sections that several programs have. The files in `config/` describe each setting.
#![expect(missing_docs, reason = "the files in config/ describe each setting")]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{NonZeroDuration, Section, comma_separated, duration, from_1_to, parsed};
use crate::host::{HostName, Network};
use crate::server::Bounds;

/// The most threads that a server can have, which is a limit of actix-server.
const MAX_WORKERS: usize = 512;

/// How many unsent bytes of an answer the operating system buffers (Linux only). The rest is in
/// this process, where it counts towards `http.max_unsent_bytes`. A fast client is not slowed down.
const UNSENT_BYTES: u32 = 65_536;

/// How long the internal port waits until an answer is received. Only our own services and
/// operators' tools use that port, so this is not a setting.
const INTERNAL_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// [`CorsSettings`].
pub const CORS: Section = Section { name: "cors", keys: include_str!("../../config/cors.toml") };
/// [`HttpSettings`].
pub const HTTP: Section = Section { name: "http", keys: include_str!("../../config/http.toml") };
/// [`InternalSettings`].
pub const INTERNAL: Section =
    Section { name: "internal", keys: include_str!("../../config/internal.toml") };
/// [`LogSettings`].
pub const LOG: Section = Section { name: "log", keys: include_str!("../../config/log.toml") };

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsSettings {
    #[serde(deserialize_with = "comma_separated")]
    pub allowed_origins: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub host: String,
    pub port: u16,
    #[serde(deserialize_with = "from_1_to::<MAX_WORKERS, _>")]
    pub workers: NonZeroUsize,
    pub max_connections_per_worker: NonZeroUsize,
    pub max_connections_per_address: NonZeroUsize,
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
    pub idle_timeout: NonZeroDuration,
    pub head_timeout: NonZeroDuration,
    pub unread_timeout: NonZeroDuration,
    pub answer_timeout: NonZeroDuration,
    pub max_unsent_bytes: usize,
    #[serde(deserialize_with = "parsed")]
    pub allowed_hosts: Vec<HostName>,
    #[serde(deserialize_with = "parsed")]
    pub trusted_proxies: Vec<Network>,
}

impl HttpSettings {
    /// The bounds of a server that answers half-closed clients.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            workers: self.workers.get(),
            connections_per_worker: self.max_connections_per_worker.get(),
            idle: self.idle_timeout.get(),
            head: self.head_timeout.get(),
            unread: self.unread_timeout.get(),
            answer: self.answer_timeout.get(),
            unsent_bytes: Some(UNSENT_BYTES),
            answers_half_closed: true,
            drain: self.drain_timeout,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InternalSettings {
    pub host: String,
    pub port: u16,
    pub max_connections: NonZeroUsize,
    pub idle_timeout: NonZeroDuration,
    pub unread_timeout: NonZeroDuration,
    pub secret_file: PathBuf,
}

impl InternalSettings {
    pub(crate) fn bounds(&self, drain: Duration) -> Bounds {
        Bounds {
            // Only health checks, metrics scrapers and other services use this port.
            workers: 1,
            connections_per_worker: self.max_connections.get(),
            idle: self.idle_timeout.get(),
            head: self.idle_timeout.get(),
            unread: self.unread_timeout.get(),
            answer: INTERNAL_ANSWER_TIMEOUT,
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
