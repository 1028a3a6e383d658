//! Connections to Postgres, with a deadline on each.

use std::time::Duration;

use deadpool_postgres::{
    BuildError, Client, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod,
    Runtime,
};
use tokio_postgres::NoTls;
use tokio_postgres::config::TargetSessionAttrs;

pub use crate::settings::{DatabaseSettings, PoolSettings};

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
        let lifetime = pool.connection_lifetime.get();
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
            .wait_timeout(Some(pool.wait_timeout))
            // tokio-postgres' own timeout is for the socket alone; this one includes authentication.
            .create_timeout(Some(database.connect_timeout.get()))
            .recycle_timeout(Some(database.connect_timeout.get()))
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
