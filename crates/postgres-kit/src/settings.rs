//! The settings of programs that connect to Postgres. The files in `config/` describe each.
#![expect(missing_docs, reason = "the files in config/ describe each setting")]

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use service_kit::settings::{
    NonZeroDuration, Section, SettingsError, comma_separated, duration, from_1_to, parsed,
    split_at_commas,
};

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
    pub host: Hosts,
    pub port: Ports,
    pub name: String,
    pub user: String,
    pub password: SecretString,
    #[serde(deserialize_with = "ssl_mode")]
    pub sslmode: Option<SslMode>,
    pub sslrootcert: RootCertificates,
    pub connect_timeout: NonZeroDuration,
    pub pooler: bool,
}

/// Hosts that commas separate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hosts(#[serde(deserialize_with = "comma_separated")] Vec<String>);

/// Ports that commas separate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ports(#[serde(deserialize_with = "parsed")] Vec<Port>);

/// A port, which is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Port(u16);

impl From<&str> for Hosts {
    /// Reads hosts that commas separate.
    fn from(text: &str) -> Self {
        Self(split_at_commas(text))
    }
}

impl Hosts {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join(","))
    }
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self::from_iter([port])
    }
}

impl FromIterator<u16> for Ports {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        Self(ports.into_iter().map(Port).collect())
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<_> = self.0.iter().map(|Port(port)| port.to_string()).collect();
        formatter.write_str(&ports.join(","))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a port, which is a whole number from 1 to 65535")]
struct InvalidPort;

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        text.parse().ok().filter(|port| *port > 0).map(Self).ok_or(InvalidPort)
    }
}

/// A server that may have the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server<'a> {
    /// A name, an address, or the folder of a Unix socket, which begins with a slash.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
}

impl Server<'_> {
    pub(crate) fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

impl fmt::Display for Server<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        // An IPv6 address.
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

impl DatabaseSettings {
    /// A database of this machine, which needs no TLS.
    #[must_use]
    pub fn local(port: u16, name: &str, user: &str, password: &str) -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: port.into(),
            name: name.to_owned(),
            user: user.to_owned(),
            password: SecretString::from(password),
            sslmode: None,
            sslrootcert: RootCertificates::default(),
            connect_timeout: NonZeroDuration::from_millis(5_000),
            pooler: false,
        }
    }

    /// The servers, in the order in which they are tried.
    pub fn servers(&self) -> impl Iterator<Item = Server<'_>> {
        // One port is that of all.
        let ports = self.port.0.iter().cycle();
        self.host.iter().zip(ports).map(|(host, Port(port))| Server { host, port: *port })
    }

    /// Refuses settings that name no server, or do not say whether to use TLS.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`], which says what to write.
    pub fn check(&self) -> Result<(), SettingsError> {
        let (hosts, ports) = (self.host.0.len(), self.port.0.len());
        if hosts == 0 {
            return Err(SettingsError::Conflict("database.host names no server".to_owned()));
        }
        if ports != 1 && ports != hosts {
            return Err(SettingsError::Conflict(format!(
                "database.port has {ports} ports for the {hosts} servers of database.host: write one \
                 port for all, or one for each"
            )));
        }
        self.check_tls()
    }

    /// The settings of a connection that the server lists under `application_name`, without the
    /// server: [`connect`](Self::connect) finds it.
    #[must_use]
    pub fn connection(&self, application_name: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .dbname(&self.name)
            .user(&self.user)
            .password(self.password.expose_secret())
            .application_name(application_name);
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

    /// The servers of these settings, or why they are refused.
    fn servers(host: &str, port: &str) -> Result<Vec<String>, String> {
        let text = DATABASE.keys.replace("host = \"127.0.0.1\"", &format!("host = {host:?}"));
        let text = text.replace("port = \"5432\"", &format!("port = {port:?}"));
        let settings: DatabaseSettings =
            toml::from_str(&text).map_err(|error| error.message().to_owned())?;
        settings.check().map_err(|error| error.to_string())?;
        Ok(settings.servers().map(|server| server.to_string()).collect())
    }

    #[test]
    fn servers_are_listed_as_libpq_lists_them() {
        assert_eq!(servers("127.0.0.1", "5432").unwrap(), ["127.0.0.1:5432"]);
        assert_eq!(
            servers("localhost, ::1,/run/postgresql", "5433").unwrap(),
            ["localhost:5433", "[::1]:5433", "/run/postgresql:5433"]
        );
        assert_eq!(
            servers("127.0.0.1,127.0.0.1", "1,65535").unwrap(),
            ["127.0.0.1:1", "127.0.0.1:65535"]
        );
        assert_eq!(servers("", "5432").unwrap_err(), "database.host names no server");
        for ports in ["", "1,2"] {
            let refused = servers("::1,::1,::1", ports).unwrap_err();
            assert!(refused.contains("for the 3 servers of database.host"), "{refused}");
        }
        for port in ["0", "65536", "x", "-1"] {
            let refused = servers("::1", port).unwrap_err();
            assert_eq!(
                refused,
                format!("{port:?} is not a port, which is a whole number from 1 to 65535")
            );
        }
    }

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
