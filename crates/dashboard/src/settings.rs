//! The settings of dashboard.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use serde::Deserialize;
use service_kit::address::{UpstreamAddress, addresses};
use service_kit::settings::sections::{
    HTTP, HttpSettings, INTERNAL, InternalSettings, LOG, LogSettings,
};
use service_kit::settings::{Defaults, ProgramSettings};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub http: HttpSettings,
    pub internal: InternalSettings,
    pub services: ServicesSettings,
    pub upstream: UpstreamSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicesSettings {
    pub gateway_url: String,
    pub gateway_port: u16,
    pub ingest_url: String,
    pub ingest_port: u16,
}

/// The section has the name and the words of sse-gateway's, but this service follows no counts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    #[serde(deserialize_with = "addresses")]
    pub addresses: Vec<UpstreamAddress>,
}

impl ProgramSettings for Settings {
    const DEFAULTS: Defaults = Defaults {
        own: include_str!("../config/default.toml"),
        shared: &[HTTP, INTERNAL, LOG],
        libpq: &[],
    };
}
