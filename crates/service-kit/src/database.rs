//! Connections to Postgres, with a deadline on each.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio_postgres::NoTls;

/// Which database to connect to, and as whom.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// The address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub name: String,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// How long the server may take to accept a connection.
    pub connect_timeout_milliseconds: u64,
}

impl DatabaseSettings {
    /// The settings of a connection that the server will list under `application_name`.
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
            .connect_timeout(self.connect_timeout())
            // No clock of this side or of the other turns up in a count, but a person reading logs of both
            // should not have to convert.
            .options("-c TimeZone=UTC");
        config
    }

    /// [`DatabaseSettings::connect_timeout_milliseconds`].
    #[must_use]
    pub const fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_milliseconds)
    }
}

/// How many connections a pool holds, and how long it is waited for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// Connections at most.
    pub connections: std::num::NonZeroUsize,
    /// How long a request waits for a free one.
    pub wait_timeout_milliseconds: u64,
}

/// A pool of connections, made when first needed: the service starts while the database is down.
///
/// # Errors
/// Never for the runtime that is built in; the pool's builder can fail for others.
pub fn pool(
    database: &DatabaseSettings,
    pool: &PoolSettings,
    application_name: &str,
) -> Result<Pool, deadpool_postgres::BuildError> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(database.connection(application_name), NoTls, recycling);
    Pool::builder(manager)
        .max_size(pool.connections.get())
        .wait_timeout(Some(Duration::from_millis(pool.wait_timeout_milliseconds)))
        // tokio-postgres' own timeout is for the socket alone; this one includes authentication.
        .create_timeout(Some(database.connect_timeout()))
        .recycle_timeout(Some(database.connect_timeout()))
        .runtime(Runtime::Tokio1)
        .build()
}
