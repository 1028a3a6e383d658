//! The settings of programs that connect to Postgres. The files in `config/` describe each.
#![expect(missing_docs, reason = "the files in config/ describe each setting")]

use std::num::NonZeroUsize;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use service_kit::settings::{NonZeroDuration, Section, SettingsError, duration, from_1_to};

use crate::tls::{RootCertificates, SslMode, ssl_mode};

/// The most connections that a pool can have, which is more than one Postgres server handles well.
/// The pool allocates memory for all of them at startup.
const MAX_CONNECTIONS: usize = 10_000;

/// [`DatabaseSettings`].
pub const DATABASE: Section =
    Section { name: "database", keys: include_str!("../config/database.toml") };
/// [`PoolSettings`].
pub const POOL: Section = Section { name: "pool", keys: include_str!("../config/pool.toml") };

/// The variables of libpq that set a service's `database` section.
pub const LIBPQ: &[(&str, &str)] = &[
    ("PGHOST", "database.host"),
    ("PGPORT", "database.port"),
    ("PGDATABASE", "database.name"),
    ("PGSSLMODE", "database.sslmode"),
    ("PGSSLROOTCERT", "database.sslrootcert"),
];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    pub host: String,
    pub port: u16,
    pub name: String,
    pub user: String,
    pub password: SecretString,
    #[serde(deserialize_with = "ssl_mode")]
    pub sslmode: Option<SslMode>,
    pub sslrootcert: RootCertificates,
    pub connect_timeout: NonZeroDuration,
    pub pooler: bool,
}

impl DatabaseSettings {
    /// A database of this machine, which needs no TLS.
    #[must_use]
    pub fn local(port: u16, name: &str, user: &str, password: &str) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port,
            name: name.to_owned(),
            user: user.to_owned(),
            password: SecretString::from(password),
            sslmode: None,
            sslrootcert: RootCertificates::default(),
            connect_timeout: NonZeroDuration::from_millis(5_000),
            pooler: false,
        }
    }

    /// The settings of a connection that the server lists under `application_name`.
    #[must_use]
    pub fn connection(&self, application_name: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .dbname(&self.name)
            .user(&self.user)
            .password(self.password.expose_secret())
            .application_name(application_name)
            .ssl_mode(self.tokio_ssl_mode())
            .connect_timeout(self.connect_timeout.get());
        // A pooler refuses all options, or gives them to the sessions of other clients.
        if !self.pooler {
            // No count depends on the time zone, but people who compare logs of both sides should
            // not have to convert times.
            config.options("-c TimeZone=UTC");
        }
        config
    }

    /// Refuses a pooler, for a program that needs a session of its own.
    ///
    /// # Errors
    /// `database.pooler` is set. `why` says what needs the session, in words that follow "because".
    pub fn refuse_pooler(&self, why: &str) -> Result<(), SettingsError> {
        if !self.pooler {
            return Ok(());
        }
        Err(SettingsError::Conflict(format!(
            "database.pooler must be false, because {why}: connect to the server itself"
        )))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    #[serde(deserialize_with = "from_1_to::<MAX_CONNECTIONS, _>")]
    pub max_connections: NonZeroUsize,
    #[serde(deserialize_with = "duration")]
    pub wait_timeout: Duration,
    pub connection_lifetime: NonZeroDuration,
    pub statement_timeout: NonZeroDuration,
}

impl PoolSettings {
    /// The pool of each of `threads` threads that divide these connections among them. Each has at
    /// least one, so check first that there are enough.
    #[must_use]
    pub fn share_of_each(&self, threads: NonZeroUsize) -> Self {
        let share = self.max_connections.get() / threads;
        Self {
            max_connections: NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN),
            ..self.clone()
        }
    }

    /// The server-side options of a pool's sessions. docs/operations.md lists the same for poolers,
    /// which need them as settings of the role.
    ///
    /// Twice a second, the server checks whether the client is still connected, and otherwise ends
    /// the session's statement, even one that waits for a lock:
    /// [`Connections::run`](crate::database::Connections::run) closes the connection of abandoned
    /// work. The timeouts cover a client that disappeared silently, behind a cut line or a proxy.
    /// None of this ends a commit that waits for a synchronous standby, because such a commit is
    /// already durable here, and ending the wait would make it visible.
    pub(crate) fn session_options(&self) -> String {
        let timeout = self.statement_timeout.get().as_millis();
        format!(
            "-c TimeZone=UTC -c client_connection_check_interval=500 -c statement_timeout={timeout} \
             -c idle_in_transaction_session_timeout={timeout} -c tcp_user_timeout={timeout}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_from_1_to_10000_connections() {
        let pool = |connections: u64| -> Result<PoolSettings, _> {
            let max_connections = format!("max_connections = {connections}");
            toml::from_str(&POOL.keys.replace("max_connections = 16", &max_connections))
        };
        for possible in [1, 10_000] {
            let settings = pool(possible).unwrap();
            assert_eq!(settings.max_connections.get().to_string(), possible.to_string());
        }
        for refused in [0, 10_001, 1 << 53] {
            let error = pool(refused).unwrap_err();
            assert_eq!(error.message(), format!("{refused} is not from 1 to 10000"));
        }
    }
}
