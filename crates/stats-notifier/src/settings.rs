//! The settings of stats-notifier.
#![expect(missing_docs, reason = "config/default.toml describes each setting")]

use std::num::NonZeroU32;
use std::time::Duration;

use domain::TimeUnit;
use postgres_kit::settings::{DATABASE, DatabaseSettings, POOL, PoolSettings};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use service_kit::settings::sections::{INTERNAL, InternalSettings, LOG, LogSettings};
use service_kit::settings::{Defaults, NonZeroDuration, ProgramSettings, SettingsError, duration};
use time::Time;
use time::macros::format_description;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub internal: InternalSettings,
    pub database: DatabaseSettings,
    pub leader: LeaderSettings,
    pub tick: TickSettings,
    pub gate: GateSettings,
    pub flush: FlushSettings,
    pub retention: RetentionSettings,
    pub history: HistorySettings,
    pub verify: VerifySettings,
    pub stream: StreamSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaderSettings {
    pub attempt_interval: NonZeroDuration,
    pub session_timeout: NonZeroDuration,
    pub address_check_interval: NonZeroDuration,
    pub lock_timeout: NonZeroDuration,
    pub statement_timeout: NonZeroDuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TickSettings {
    pub interval: NonZeroDuration,
    pub listen: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSettings {
    pub shut_after_ticks: u32,
    pub open_after_ticks: u32,
    pub max_poll_interval: NonZeroDuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushSettings {
    pub interval: NonZeroDuration,
    pub max_purge_rows: NonZeroU32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSettings {
    pub second_days: u16,
    pub minute_days: u16,
    pub hour_days: u16,
    pub interval: NonZeroDuration,
    pub max_delete_rows: NonZeroU32,
}

impl RetentionSettings {
    /// The units that are not kept forever, each with the number of days for which it is kept.
    pub fn units(&self) -> impl Iterator<Item = (TimeUnit, i32)> {
        let units = [
            (TimeUnit::Second, self.second_days),
            (TimeUnit::Minute, self.minute_days),
            (TimeUnit::Hour, self.hour_days),
        ];
        units.into_iter().filter(|(_, days)| *days > 0).map(|(unit, days)| (unit, days.into()))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistorySettings {
    pub pool: PoolSettings,
    pub timeout: NonZeroDuration,
    pub max_page_buckets: NonZeroU32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifySettings {
    #[serde(deserialize_with = "time_of_day")]
    pub at_utc: Option<Time>,
    pub max_load_percent: NonZeroU32,
}

/// A time of day, such as `03:30` or `03:30:15`, or none.
fn time_of_day<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Time>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    let format = format_description!("[hour]:[minute][optional [:[second]]]");
    let time = Time::parse(&text, format).map(Some);
    time.map_err(|_| D::Error::custom(format!("{text:?} is not a time of day such as 03:30")))
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    pub heartbeat: NonZeroDuration,
    pub max_subscribers: usize,
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
}

impl ProgramSettings for Settings {
    const DEFAULTS: Defaults = Defaults {
        own: include_str!("../config/default.toml"),
        shared: &[INTERNAL, DATABASE, POOL.named("history.pool"), LOG],
        libpq: postgres_kit::settings::LIBPQ,
    };

    /// A pooler shares sessions between clients, so the lock of the lead would be anyone's.
    ///
    /// The server ends a session that is silent for the session timeout, so a replica must use its
    /// sessions more often: a standby when it tries to become the leader, a leader when it polls
    /// and when it flushes.
    fn check(&self) -> Result<(), SettingsError> {
        self.database.check()?;
        self.database.refuse_pooler(
            "the lead is a lock of a session, and notifications arrive on a session",
        )?;
        for interval in [
            ("leader.attempt_interval", self.leader.attempt_interval),
            ("gate.max_poll_interval", self.gate.max_poll_interval),
            ("flush.interval", self.flush.interval),
        ] {
            SettingsError::unless_at_most_half(
                interval,
                ("leader.session_timeout", self.leader.session_timeout),
                "the server would end the session of a healthy replica, again and again",
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pooler_is_refused() {
        let mut settings = Settings::load().unwrap();
        settings.database.pooler = true;
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "database.pooler must be false, because the lead is a lock of a session, and \
             notifications arrive on a session: connect to the server itself"
        );
    }

    #[test]
    fn a_session_timeout_shorter_than_two_intervals_is_refused() {
        let mut settings = Settings::load().unwrap();
        settings.leader.session_timeout = NonZeroDuration::from_millis(1_999);
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "gate.max_poll_interval must be at most half of leader.session_timeout, but is 1s of 1s 999ms: \
             the server would end the session of a healthy replica, again and again"
        );
        settings.gate.max_poll_interval = NonZeroDuration::from_millis(999);
        let error = settings.check().unwrap_err().to_string();
        assert!(error.starts_with("flush.interval must be"), "{error}");
        settings.flush.interval = NonZeroDuration::from_millis(999);
        settings.check().unwrap();
        settings.leader.attempt_interval = NonZeroDuration::from_millis(1_000);
        let error = settings.check().unwrap_err().to_string();
        assert!(error.starts_with("leader.attempt_interval must be"), "{error}");
    }
}
