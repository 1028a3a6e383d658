//! The settings of sse-gateway.
#![expect(
    missing_docs,
    reason = "config/default.toml and the shared sections describe each setting"
)]

use std::num::NonZeroUsize;

use access_kit::settings::{ACCESS, AccessSettings};
use serde::Deserialize;
use service_kit::settings::sections::{
    CORS, CorsSettings, HTTP, HttpSettings, INTERNAL, InternalSettings, LOG, LogSettings,
};
use service_kit::settings::{Defaults, NonZeroDuration, ProgramSettings, SettingsError};
use statistics_stream::{HubSettings, STREAM, UPSTREAM, UpstreamSettings};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub http: HttpSettings,
    pub internal: InternalSettings,
    pub upstream: UpstreamSettings,
    pub stream: HubSettings,
    pub history: HistoryClientSettings,
    pub cors: CorsSettings,
    pub access: AccessSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryClientSettings {
    pub default_page_buckets: NonZeroUsize,
    pub max_page_buckets: NonZeroUsize,
    pub max_concurrent_requests: NonZeroUsize,
    pub timeout: NonZeroDuration,
    pub max_page_bytes: usize,
}

impl ProgramSettings for Settings {
    const DEFAULTS: Defaults = Defaults {
        own: include_str!("../config/default.toml"),
        shared: &[HTTP, INTERNAL, UPSTREAM, STREAM, CORS, ACCESS, LOG],
        libpq: &[],
    };

    /// A gateway that follows this one most likely has the same settings, so it must get a
    /// heartbeat more often than it tolerates silence.
    fn check(&self) -> Result<(), SettingsError> {
        self.access.check(&[("http.host", &self.http.host)])?;
        SettingsError::unless_at_most_half(
            ("stream.internal_heartbeat", self.stream.internal_heartbeat),
            ("upstream.read_timeout", self.upstream.read_timeout),
            "a gateway that follows this one would drop it between two heartbeats",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_timeout_shorter_than_two_heartbeats_is_refused() {
        let mut settings = Settings::load().unwrap();
        settings.upstream.read_timeout = NonZeroDuration::from_millis(1_999);
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "stream.internal_heartbeat must be at most half of upstream.read_timeout, but is 1s of 1s 999ms: \
             a gateway that follows this one would drop it between two heartbeats"
        );
        settings.stream.internal_heartbeat = NonZeroDuration::from_millis(999);
        settings.check().unwrap();
    }
}
