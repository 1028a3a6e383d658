//! The settings of sse-gateway; `config/default.toml` explains each and gives its unit.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use serde::Deserialize;
use service_kit::settings::{HttpSettings, InternalSettings, Layers, LogSettings, SettingsError};
use statistics_stream::HubSettings;
use statistics_stream::upstream;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it listens.
    pub http: HttpSettings,
    /// Where it is looked after, and where other gateways follow it.
    pub internal: InternalSettings,
    /// Whom it follows.
    pub upstream: UpstreamSettings,
    /// How it serves.
    pub stream: StreamSettings,
    /// How history is asked for.
    pub history: HistorySettings,
    /// Who may read from a page of another origin.
    pub cors: CorsSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// Whom it follows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Addresses, separated by commas.
    pub addresses: String,
    /// After how long without a word the upstream is given up.
    pub silence_milliseconds: NonZeroU64,
    /// How long it may take until an upstream answers.
    pub connect_timeout_milliseconds: NonZeroU64,
    /// The wait before the next address is tried.
    pub retry_milliseconds: NonZeroU64,
    /// The largest event taken.
    pub max_event_bytes: usize,
}

/// How it serves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// The shortest time between two frames.
    pub pace_milliseconds: u64,
    /// How often clients are told the status.
    pub heartbeat_milliseconds: NonZeroU64,
    /// How often gateways are.
    pub internal_heartbeat_milliseconds: NonZeroU64,
    /// How many clients there may be.
    pub max_clients: usize,
    /// How much the operating system keeps of a stream before it is sent.
    pub unsent_bytes: NonZeroU32,
    /// The shortest wait before a client reconnects.
    pub retry_min_milliseconds: u64,
    /// The longest.
    pub retry_max_milliseconds: u64,
}

/// How history is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistorySettings {
    /// Buckets of a page where the client asks for no other number.
    pub page_buckets_default: NonZeroUsize,
    /// The most that it can ask for.
    pub page_buckets_max: NonZeroUsize,
    /// Requests to the upstreams at a time.
    pub concurrent_requests: NonZeroUsize,
    /// How long a page may take, over all upstreams.
    pub timeout_milliseconds: NonZeroU64,
    /// The largest page taken from an upstream.
    pub max_page_bytes: usize,
}

/// Who may read from a page of another origin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsSettings {
    /// Origins, separated by commas, or `*`.
    pub allowed_origins: String,
}

/// Where the settings come from.
pub const LAYERS: Layers = Layers {
    defaults: include_str!("../config/default.toml"),
    variables: &[
        ("GATEWAY_PORT", "http.port"),
        ("GATEWAY_INTERNAL_PORT", "internal.port"),
        ("NEWCYCLE_UPSTREAMS", "upstream.addresses"),
    ],
};

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`SettingsError`], naming the setting that is wrong, or the two that do not go together.
    pub fn load() -> Result<Self, SettingsError> {
        let settings: Self = LAYERS.load()?;
        settings.check()?;
        Ok(settings)
    }

    /// Another gateway that follows this one, most likely with the same settings, must hear from it
    /// more often than it bears silence.
    fn check(&self) -> Result<(), SettingsError> {
        let heartbeat = self.stream.internal_heartbeat_milliseconds.get();
        let silence = self.upstream.silence_milliseconds.get();
        if heartbeat > silence / 2 {
            return Err(SettingsError::NotTogether {
                smaller: "stream.internal_heartbeat_milliseconds",
                larger: "upstream.silence_milliseconds",
                values: (heartbeat, silence),
                why: "a gateway that follows this one would take it for lost between two of its words",
            });
        }
        Ok(())
    }

    /// The hub's part of the settings.
    #[must_use]
    pub fn hub(&self) -> HubSettings {
        let stream = &self.stream;
        HubSettings {
            pace: Duration::from_millis(stream.pace_milliseconds),
            heartbeat: Duration::from_millis(stream.heartbeat_milliseconds.get()),
            internal_heartbeat: Duration::from_millis(stream.internal_heartbeat_milliseconds.get()),
            max_subscribers: stream.max_clients,
            retry_min: Duration::from_millis(
                stream.retry_min_milliseconds.min(stream.retry_max_milliseconds),
            ),
            retry_max: Duration::from_millis(stream.retry_max_milliseconds),
            ..HubSettings::default()
        }
    }

    /// The upstream's part of the settings.
    #[must_use]
    pub fn upstream(&self) -> upstream::FollowSettings {
        let settings = &self.upstream;
        upstream::FollowSettings {
            addresses: list(&settings.addresses)
                .map(|address| address.trim_end_matches('/').to_owned())
                .collect(),
            silence: Duration::from_millis(settings.silence_milliseconds.get()),
            connect_timeout: Duration::from_millis(settings.connect_timeout_milliseconds.get()),
            retry: Duration::from_millis(settings.retry_milliseconds.get()),
            max_event_bytes: settings.max_event_bytes,
        }
    }
}

/// The parts of a setting that are separated by commas.
pub(crate) fn list(setting: &str) -> impl Iterator<Item = &str> {
    setting.split(',').map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_shorter_than_between_two_words_is_refused() {
        let mut settings = Settings::load().unwrap();
        settings.upstream.silence_milliseconds = NonZeroU64::new(1_999).unwrap();
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "stream.internal_heartbeat_milliseconds must be at most half of upstream.silence_milliseconds, but is 1000 of \
             1999: a gateway that follows this one would take it for lost between two of its words"
        );
        settings.stream.internal_heartbeat_milliseconds = NonZeroU64::new(999).unwrap();
        settings.check().unwrap();
    }
}
