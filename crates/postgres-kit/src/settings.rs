//! The settings of programs that connect to Postgres. The files in `config/` describe each.
#![expect(missing_docs, reason = "the files in config/ describe each setting")]

use std::num::NonZeroU16;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use service_kit::settings::{NonZeroDuration, Section, duration};

/// [`DatabaseSettings`].
pub const DATABASE: Section = ("database", include_str!("../config/database.toml"));
/// [`PoolSettings`].
pub const POOL: Section = ("pool", include_str!("../config/pool.toml"));

/// The variables of libpq that set a service's `database` section.
pub const LIBPQ: &[(&str, &str)] =
    &[("PGHOST", "database.host"), ("PGPORT", "database.port"), ("PGDATABASE", "database.name")];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    pub host: String,
    pub port: u16,
    pub name: String,
    pub user: String,
    pub password: SecretString,
    pub connect_timeout: NonZeroDuration,
}

impl DatabaseSettings {
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
            .connect_timeout(self.connect_timeout.get())
            // No count depends on the time zone, but people who compare logs of both sides should
            // not have to convert times.
            .options("-c TimeZone=UTC");
        config
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    pub max_connections: NonZeroU16,
    #[serde(deserialize_with = "duration")]
    pub wait_timeout: Duration,
    pub connection_lifetime: NonZeroDuration,
    pub statement_timeout: NonZeroDuration,
}

impl PoolSettings {
    /// The server-side options of a pool's sessions.
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
