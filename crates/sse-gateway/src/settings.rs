//! The settings of sse-gateway.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::Deserialize;
use service_kit::command::ServiceSettings;
use service_kit::settings::sections::{
    HTTP, HttpSettings, INTERNAL, InternalSettings, LOG, LogSettings,
};
use service_kit::settings::{Defaults, NonZeroDuration, SettingsError, comma_separated, duration};
use statistics_stream::HubSettings;
use statistics_stream::upstream;

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
    pub upstream: UpstreamSettings,
    pub stream: StreamSettings,
    pub history: HistorySettings,
    pub cors: CorsSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    pub addresses: String,
    pub silence: NonZeroDuration,
    pub connect_timeout: NonZeroDuration,
    pub retry: NonZeroDuration,
    pub max_event_bytes: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    #[serde(deserialize_with = "duration")]
    pub pace: Duration,
    pub heartbeat: NonZeroDuration,
    pub internal_heartbeat: NonZeroDuration,
    pub max_clients: usize,
    pub unsent_bytes: NonZeroU32,
    #[serde(deserialize_with = "duration")]
    pub retry_min: Duration,
    #[serde(deserialize_with = "duration")]
    pub retry_max: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistorySettings {
    pub page_buckets_default: NonZeroUsize,
    pub page_buckets_max: NonZeroUsize,
    pub concurrent_requests: NonZeroUsize,
    pub timeout: NonZeroDuration,
    pub max_page_bytes: usize,
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
    /// [`SettingsError`], which names the setting, or the two that do not go together.
    pub fn load() -> Result<Self, SettingsError> {
        let settings: Self = DEFAULTS.load()?;
        settings.check()?;
        Ok(settings)
    }

    /// A gateway that follows this one most likely has the same settings, so it must get a
    /// heartbeat more often than it tolerates silence.
    fn check(&self) -> Result<(), SettingsError> {
        SettingsError::unless_at_most_half(
            ("stream.internal_heartbeat", self.stream.internal_heartbeat),
            ("upstream.silence", self.upstream.silence),
            "a gateway that follows this one would drop it between two heartbeats",
        )
    }

    #[must_use]
    pub fn hub(&self) -> HubSettings {
        let stream = &self.stream;
        HubSettings {
            pace: stream.pace,
            heartbeat: stream.heartbeat.get(),
            internal_heartbeat: stream.internal_heartbeat.get(),
            max_subscribers: stream.max_clients,
            retry_min: stream.retry_min.min(stream.retry_max),
            retry_max: stream.retry_max,
        }
    }

    #[must_use]
    pub fn upstream(&self) -> upstream::FollowSettings {
        let settings = &self.upstream;
        upstream::FollowSettings {
            addresses: comma_separated(&settings.addresses)
                .map(|address| address.trim_end_matches('/').to_owned())
                .collect(),
            silence: settings.silence.get(),
            connect_timeout: settings.connect_timeout.get(),
            retry: settings.retry.get(),
            max_event_bytes: settings.max_event_bytes,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_shorter_than_two_heartbeats_is_refused() {
        let mut settings = Settings::load().unwrap();
        settings.upstream.silence = Duration::from_millis(1_999).try_into().unwrap();
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "stream.internal_heartbeat must be at most half of upstream.silence, but is 1s of 1s 999ms: \
             a gateway that follows this one would drop it between two heartbeats"
        );
        settings.stream.internal_heartbeat = Duration::from_millis(999).try_into().unwrap();
        settings.check().unwrap();
    }
}
