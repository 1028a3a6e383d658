//! Connections to Postgres, with a deadline on each.

use std::time::Duration;

use deadpool_postgres::{
    BuildError, Client, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod,
    Runtime,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio_postgres::NoTls;
use tokio_postgres::config::TargetSessionAttrs;

use service_kit::settings::Count;

/// The most connections that a pool can have, which are more than one server of Postgres serves well.
const CONNECTIONS_MAX: usize = 10_000;

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
    /// Connections at most. The pool makes room for all of them at once.
    pub connections: Count<CONNECTIONS_MAX>,
    /// How long a request waits for a free one.
    pub wait_timeout_milliseconds: u64,
    /// How long a connection is used. One that leads to a server which does not know that a failover has left it behind
    /// would be used for good.
    pub connection_seconds: std::num::NonZeroU64,
    /// How long the server works on a statement, or waits within a transaction for the next, where it does not see that
    /// the client has gone. Longer than any request waits.
    pub statement_timeout_milliseconds: std::num::NonZeroU64,
}

impl PoolSettings {
    /// What the server is told of a pool's sessions. It looks twice a second whether their client is still there, and else
    /// ends what it does for them, even a wait for a lock: [`Connections::run`] closes the connection of what it gives
    /// up. Of a client that went without a word, behind a cut line or a proxy, it learns by the timeouts. None of this ends
    /// a commit that waits for a synchronous standby: that is as good as done, and to break the wait off would show it.
    fn session_options(&self) -> String {
        let timeout = self.statement_timeout_milliseconds;
        format!(
            "-c TimeZone=UTC -c client_connection_check_interval=500 -c statement_timeout={timeout} \
             -c idle_in_transaction_session_timeout={timeout} -c tcp_user_timeout={timeout}"
        )
    }
}

/// The database was not there in time.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No connection could be had.
    #[error("no connection to the database: {0}")]
    NoConnection(#[from] PoolError),
    /// There was no answer.
    #[error("no answer from the database within {} ms", .0.as_millis())]
    NoAnswer(Duration),
}

/// Whether an error says that the server is gone, full, stopping or not yet promoted, or that transactions were in each
/// other's way, rather than that it refused a statement: the same may succeed a little later.
#[must_use]
pub fn is_away(error: &tokio_postgres::Error) -> bool {
    // Without an answer of the server, the connection is gone; classes 08, 53 and 57 are those of a server
    // that goes away, is full or is stopping, 40 that of deadlocks and serialization, and 25006 is that of a standby
    // (https://www.postgresql.org/docs/current/errcodes-appendix.html).
    error.code().is_none_or(|code| {
        ["08", "40", "53", "57", "25006"].iter().any(|class| code.code().starts_with(class))
    })
}

/// How many connections there are, and how many requests wait for one.
#[derive(Debug, Clone, Copy)]
pub struct PoolUse {
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections in use.
    pub in_use: usize,
    /// Requests that wait.
    pub waiting: usize,
}

/// A connection that does not go back to its pool when this is dropped: whoever had it next would wait for what it was asked
/// before.
struct ClosedUnlessTaken(Option<Object>);

impl Drop for ClosedUnlessTaken {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

/// Connections to one database, made when first needed, with a deadline on all that is asked of it: the service
/// starts while the database is down.
#[derive(Debug, Clone)]
pub struct Connections {
    pool: Pool,
}

impl Connections {
    /// Connections that the server will list under `application_name`.
    ///
    /// # Errors
    /// Never for the runtime that is built in; the pool's builder can fail for others.
    pub fn new(
        database: &DatabaseSettings,
        pool: &PoolSettings,
        application_name: &str,
    ) -> Result<Self, BuildError> {
        let lifetime = Duration::from_secs(pool.connection_seconds.get());
        let not_too_old = Hook::sync_fn(move |_, metrics| {
            if metrics.age() < lifetime { Ok(()) } else { Err(HookError::message("it is too old")) }
        });
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let mut connection = database.connection(application_name);
        connection.options(pool.session_options());
        // What a standby has may be old, and during a failover it may be what is lost.
        connection.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let manager = Manager::from_config(connection, NoTls, recycling);
        let pool = Pool::builder(manager)
            .max_size(pool.connections.get())
            .wait_timeout(Some(Duration::from_millis(pool.wait_timeout_milliseconds)))
            // tokio-postgres' own timeout is for the socket alone; this one includes authentication.
            .create_timeout(Some(database.connect_timeout()))
            .recycle_timeout(Some(database.connect_timeout()))
            .pre_recycle(not_too_old)
            .runtime(Runtime::Tokio1)
            .build()?;
        Ok(Self { pool })
    }

    /// Runs `work` on a connection. Where it does not end in time, or the caller is gone before it does, the connection is
    /// closed, for whatever it was asked may still be under way.
    ///
    /// # Errors
    /// [`Unavailable`] after `timeout`, which includes the wait for a connection; and those of `work`.
    pub async fn run<T, E: From<Unavailable>>(
        &self,
        timeout: Duration,
        work: impl AsyncFnOnce(&Client) -> Result<T, E>,
    ) -> Result<T, E> {
        let ended = tokio::time::timeout(timeout, async {
            let mut held = ClosedUnlessTaken(None);
            let result = work(held.0.insert(self.pool.get().await.map_err(Unavailable::from)?)).await;
            drop(held.0.take());
            result
        });
        ended.await.unwrap_or_else(|_| Err(Unavailable::NoAnswer(timeout).into()))
    }

    /// How the connections are used just now.
    #[must_use]
    pub fn pool_use(&self) -> PoolUse {
        let status = self.pool.status();
        let idle = status.available;
        PoolUse { idle, in_use: status.size.saturating_sub(idle), waiting: status.waiting }
    }
}
