//! The settings of a hub and of the client that follows an upstream. The files in `config/`
//! describe each.
#![expect(missing_docs, reason = "the files in config/ describe each setting")]

use std::time::Duration;

use serde::Deserialize;
use service_kit::address::{UpstreamAddress, addresses};
use service_kit::settings::{NonZeroDuration, Section, duration};

/// [`HubSettings`].
pub const STREAM: Section = Section { name: "stream", keys: include_str!("../config/stream.toml") };
/// [`UpstreamSettings`].
pub const UPSTREAM: Section =
    Section { name: "upstream", keys: include_str!("../config/upstream.toml") };

/// The limits and intervals of a [`Hub`](crate::Hub). A pace of zero announces every change.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSettings {
    #[serde(deserialize_with = "duration")]
    pub pace: Duration,
    pub heartbeat: NonZeroDuration,
    pub internal_heartbeat: NonZeroDuration,
    pub max_subscribers: usize,
    #[serde(deserialize_with = "duration")]
    pub min_retry_delay: Duration,
    #[serde(deserialize_with = "duration")]
    pub max_retry_delay: Duration,
}

impl Default for HubSettings {
    /// Settings of a hub that other services follow. They pace the frames that they send to
    /// clients, so pacing here would only add latency.
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the text is a constant, which the tests read")]
        let stream: Self =
            toml::from_str(STREAM.keys).expect("config/stream.toml has every setting of a hub");
        Self { pace: Duration::ZERO, ..stream }
    }
}

/// Which upstreams to [follow](crate::upstream::follow), and when to give one up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    #[serde(deserialize_with = "addresses")]
    pub addresses: Vec<UpstreamAddress>,
    pub read_timeout: NonZeroDuration,
    pub connect_timeout: NonZeroDuration,
    pub retry_delay: NonZeroDuration,
    pub max_event_bytes: usize,
}
