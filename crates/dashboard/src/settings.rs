//! The settings of dashboard; `config/default.toml` explains each.

use std::num::NonZeroUsize;

use serde::Deserialize;
use service_kit::settings::{HttpSettings, InternalSettings, Layers, LogSettings, SettingsError};

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the page is served.
    pub http: HttpSettings,
    /// Where it is looked after.
    pub internal: InternalSettings,
    /// What bounds it.
    pub limits: Limits,
    /// Where the page finds the other services.
    pub services: ServicesSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// What bounds it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections of clients to one worker.
    pub connections_per_worker: NonZeroUsize,
}

/// Where the page finds the other services, as a browser reaches them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicesSettings {
    /// The URL of sse-gateway; empty is the host that the page came from, by its port.
    pub gateway_url: String,
    /// The port of sse-gateway on that host.
    pub gateway_port: u16,
    /// The URL of ingest-api; empty is the host that the page came from, by its port.
    pub ingest_url: String,
    /// The port of ingest-api on that host.
    pub ingest_port: u16,
}

/// Where the settings come from.
pub const LAYERS: Layers = Layers {
    defaults: include_str!("../config/default.toml"),
    variables: &[
        ("DASHBOARD_PORT", "http.port"),
        ("DASHBOARD_INTERNAL_PORT", "internal.port"),
        ("DASHBOARD_GATEWAY_URL", "services.gateway_url"),
        ("GATEWAY_PORT", "services.gateway_port"),
        ("DASHBOARD_INGEST_URL", "services.ingest_url"),
        ("INGEST_PORT", "services.ingest_port"),
    ],
};

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`SettingsError`], naming the setting that is wrong.
    pub fn load() -> Result<Self, SettingsError> {
        LAYERS.load()
    }
}
