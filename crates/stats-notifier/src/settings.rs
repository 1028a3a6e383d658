//! The settings of stats-notifier; `config/default.toml` explains each and gives its unit.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use domain::TimeUnit;
use postgres_kit::database::{DatabaseSettings, PoolSettings};
use serde::Deserialize;
use service_kit::settings::{InternalSettings, Layers, LogSettings, SettingsError};
use time::Time;
use time::macros::format_description;

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
    /// For how long fine units are kept.
    pub retention: RetentionSettings,
    /// How history is answered.
    pub history: HistorySettings,
    /// When what is counted is compared with the events.
    pub verify: VerifySettings,
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
    /// How often it is looked whether the database's address still leads to the session's server.
    pub address_check_interval_milliseconds: NonZeroU64,
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
    /// A log of more bytes is folded before a term loads it.
    pub long_log_bytes: i64,
    /// How many log rows one purge deletes.
    pub purge_rows: NonZeroU32,
}

/// For how long fine units are kept; 0 is for good.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSettings {
    /// Days for which seconds are kept.
    pub second_days: u16,
    /// Days for which minutes are kept.
    pub minute_days: u16,
    /// Days for which hours are kept.
    pub hour_days: u16,
    /// How often it is looked whether anything is too old.
    pub interval_seconds: NonZeroU64,
    /// How many rollups are deleted at a time.
    pub delete_rows: NonZeroU32,
}

impl RetentionSettings {
    /// The units that are not kept for good, and for how many days they are.
    pub fn units(&self) -> impl Iterator<Item = (TimeUnit, i32)> {
        let units = [
            (TimeUnit::Second, self.second_days),
            (TimeUnit::Minute, self.minute_days),
            (TimeUnit::Hour, self.hour_days),
        ];
        units.into_iter().filter(|(_, days)| *days > 0).map(|(unit, days)| (unit, days.into()))
    }
}

/// How history is answered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistorySettings {
    /// The connections that are read from.
    pub pool: PoolSettings,
    /// How long one page may take, the wait for a connection included.
    pub timeout_milliseconds: NonZeroU64,
    /// How many buckets a page has at most.
    pub page_buckets: NonZeroU32,
}

/// When what is counted is compared with the events.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifySettings {
    /// The time of day in UTC; empty is never.
    pub at_utc: TimeOfDay,
    /// For which share of the time the database is busy with it at most.
    pub load_percent: NonZeroU32,
}

/// A time of day as `03:30` or `03:30:15`, or empty for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeOfDay(pub Option<Time>);

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let form = format_description!("[hour]:[minute][optional [:[second]]]");
        let time = Time::parse(&text, form);
        time.map(|time| Self(Some(time))).map_err(|_| format!("{text:?} is no time of day such as 03:30"))
    }
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
    /// [`SettingsError`], naming the setting that is wrong, or the two that do not go together.
    pub fn load() -> Result<Self, SettingsError> {
        let settings: Self = LAYERS.load()?;
        settings.check()?;
        Ok(settings)
    }

    /// The server ends a session that says nothing for the session timeout, so whoever has one must speak more often: a
    /// standby that tries to lead, and a leader that polls and flushes.
    fn check(&self) -> Result<(), SettingsError> {
        let timeout = self.leader.session_timeout_milliseconds.get();
        let attempts = self.leader.attempt_interval_milliseconds.get();
        let (polls, flushes) = (self.gate.floor_milliseconds.get(), self.flush.interval_milliseconds.get());
        let leading = if polls < flushes {
            ("gate.floor_milliseconds", polls)
        } else {
            ("flush.interval_milliseconds", flushes)
        };
        let standing_by = ("leader.attempt_interval_milliseconds", attempts);
        for (smaller, milliseconds) in [standing_by, leading] {
            if milliseconds > timeout / 2 {
                return Err(SettingsError::NotTogether {
                    smaller,
                    larger: "leader.session_timeout_milliseconds",
                    values: (milliseconds, timeout),
                    why: "the server would end the session of a healthy replica, again and again",
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_would_end_in_between_is_refused() {
        let mut settings = Settings::load().unwrap();
        settings.leader.session_timeout_milliseconds = NonZeroU64::new(1_999).unwrap();
        // The shorter of the two counts, for either is a word.
        settings.flush.interval_milliseconds = NonZeroU64::new(5_000).unwrap();
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "gate.floor_milliseconds must be at most half of leader.session_timeout_milliseconds, but is 1000 of 1999: \
             the server would end the session of a healthy replica, again and again"
        );
        settings.gate.floor_milliseconds = NonZeroU64::new(999).unwrap();
        settings.check().unwrap();
        settings.leader.attempt_interval_milliseconds = NonZeroU64::new(1_000).unwrap();
        let error = settings.check().unwrap_err().to_string();
        assert!(error.starts_with("leader.attempt_interval_milliseconds must be"), "{error}");
    }
}
