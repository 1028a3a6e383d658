//! The section `access` of the settings.
#![expect(missing_docs, reason = "config/access.toml describes each setting")]

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use service_kit::settings::{Section, SettingsError, parsed};

use crate::scope::{Permission, Scope};

/// [`AccessSettings`].
pub const ACCESS: Section = Section { name: "access", keys: include_str!("../config/access.toml") };

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessSettings {
    pub mode: AccessMode,
    #[serde(deserialize_with = "parsed")]
    pub anonymous_scopes: Vec<Scope>,
    pub offline_seconds: u32,
    pub refusals_per_minute: NonZeroU32,
}

/// The default of `access.refusals_per_minute`, for services without that setting.
pub(crate) const REFUSALS_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(599);

/// Whether requests need a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// They do.
    Keys,
    /// Everyone who can connect may do everything.
    Open,
}

impl AccessSettings {
    /// How long the last keyring is used after it was confirmed.
    pub(crate) fn offline(&self) -> Duration {
        Duration::from_secs(self.offline_seconds.into())
    }

    /// Checks the settings of a service that listens on `hosts`, each with the name of its setting.
    ///
    /// # Errors
    /// The service is open and can be reached from other machines, or anonymous clients may do more
    /// than read statistics.
    pub fn check(&self, hosts: &[(&str, &str)]) -> Result<(), SettingsError> {
        let more = |scope: &&Scope| scope.permission() != Permission::StatisticsRead;
        if let Some(scope) = self.anonymous_scopes.iter().find(more) {
            return Err(SettingsError::Conflict(format!(
                "access.anonymous_scopes has {scope}, but only the reading of statistics can be \
                 permitted without a key"
            )));
        }
        let reached = |(_, host): &&(&str, &str)| !is_loopback(host);
        match hosts.iter().find(reached) {
            Some((setting, host)) if self.mode == AccessMode::Open => {
                Err(SettingsError::Conflict(format!(
                    "access.mode is \"open\", but {setting} is {host}: other machines could reach \
                     this service, and everyone could do everything. Listen on 127.0.0.1, or use keys"
                )))
            }
            _ => Ok(()),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(mode: AccessMode, anonymous: &[&str]) -> AccessSettings {
        let anonymous_scopes = anonymous.iter().map(|scope| scope.parse().unwrap()).collect();
        let refusals_per_minute = REFUSALS_PER_MINUTE;
        AccessSettings { mode, anonymous_scopes, offline_seconds: 3600, refusals_per_minute }
    }

    #[test]
    fn an_open_service_is_for_this_machine_only() {
        for host in ["127.0.0.1", "127.0.0.9", "::1", "localhost"] {
            settings(AccessMode::Open, &[]).check(&[("http.host", host)]).unwrap();
        }
        for host in ["0.0.0.0", "::", "10.0.0.1", "counts.example", "localhost.example", ""] {
            let hosts = [("internal.host", "127.0.0.1"), ("http.host", host)];
            let refused = settings(AccessMode::Open, &[]).check(&hosts).unwrap_err().to_string();
            assert!(refused.contains("http.host is"), "{refused}");
            settings(AccessMode::Keys, &[]).check(&hosts).unwrap();
        }
    }

    #[test]
    fn without_a_key_only_statistics_can_be_read() {
        let statistics = ["statistics:read", "statistics:read:transfers/*"];
        settings(AccessMode::Keys, &statistics).check(&[]).unwrap();
        for scope in ["ingest:read", "ingest:write", "ingest:delete"] {
            let refused = settings(AccessMode::Keys, &[scope]).check(&[]).unwrap_err().to_string();
            assert!(refused.contains(scope), "{refused}");
        }
    }
}
