//! The settings of stats-notifier; `config/default.toml` explains each and gives its unit.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::Deserialize;
use service_kit::database::DatabaseSettings;
use service_kit::settings::{InternalSettings, Layers, LogSettings, SettingsError};

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it serves gateways, and is looked after.
    pub internal: InternalSettings,
    /// The database.
    pub database: DatabaseSettings,
    /// Taking and losing the lead.
    pub leader: LeaderSettings,
    /// How the log is read.
    pub tick: TickSettings,
    /// When producers need not notify.
    pub gate: GateSettings,
    /// How the rollups are kept.
    pub flush: FlushSettings,
    /// The internal stream.
    pub stream: StreamSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// Taking and losing the lead.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaderSettings {
    /// How often a standby tries to take the lead.
    pub attempt_interval_milliseconds: NonZeroU64,
    /// After how long without a word the server ends the session.
    pub session_timeout_milliseconds: NonZeroU64,
    /// How long a statement may wait for a lock.
    pub lock_timeout_milliseconds: NonZeroU64,
    /// How long one tick, flush or purge may take.
    pub statement_timeout_milliseconds: NonZeroU64,
}

/// How the log is read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TickSettings {
    /// The shortest time between two ticks.
    pub interval_milliseconds: NonZeroU64,
    /// Whether notifications are listened for.
    pub listen: bool,
}

/// When producers need not notify.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSettings {
    /// Ticks in a row that found something, after which the gate is shut.
    pub shut_after_ticks: u32,
    /// Ticks in a row that found nothing, after which it is opened.
    pub open_after_ticks: u32,
    /// The longest time between two polls.
    pub floor_milliseconds: NonZeroU64,
}

/// How the rollups are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushSettings {
    /// The time between two flushes.
    pub interval_milliseconds: NonZeroU64,
    /// How many log rows one purge deletes.
    pub purge_rows: u32,
}

/// The internal stream.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// How often gateways are told that the numbers are live.
    pub heartbeat_milliseconds: NonZeroU64,
    /// How many gateways may follow.
    pub max_subscribers: usize,
    /// How long open streams may take to end after SIGTERM.
    pub drain_seconds: u64,
}

/// A setting in milliseconds, as a duration.
#[must_use]
pub const fn milliseconds(setting: NonZeroU64) -> Duration {
    Duration::from_millis(setting.get())
}

/// Where the settings come from.
pub const LAYERS: Layers = Layers {
    defaults: include_str!("../config/default.toml"),
    variables: &[
        ("NOTIFIER_PORT", "internal.port"),
        ("PGHOST", "database.host"),
        ("PGPORT", "database.port"),
        ("PGDATABASE", "database.name"),
        ("NOTIFIER_DATABASE_PASSWORD", "database.password"),
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
