//! A pool of connections to Postgres, with a time limit on each use.

use std::iter::Sum;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::Runtime;
pub use deadpool::managed::BuildError;
use deadpool::managed::{self, Hook, HookError, Metrics, QueueMode, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use tokio_postgres::Config;

use crate::connect::ConnectError;
pub use crate::error::{Unavailable, describe, is_away};
use crate::session::StatementKind;
pub use crate::session::{Parameter, Session};
pub use crate::settings::{DatabaseSettings, PoolSettings};
pub use crate::tls::Connection;

/// The use of a pool at one moment.
#[derive(Debug, Clone, Copy)]
pub struct PoolUse {
    /// Connections not in use.
    pub idle: usize,
    /// Connections in use.
    pub in_use: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Statements since the start that were prepared again, because a table had changed.
    pub replanned: u64,
}

impl Sum for PoolUse {
    fn sum<I: Iterator<Item = Self>>(pools: I) -> Self {
        let none = Self { idle: 0, in_use: 0, waiting: 0, replanned: 0 };
        pools.fold(none, |sum, pool| Self {
            idle: sum.idle + pool.idle,
            in_use: sum.in_use + pool.in_use,
            waiting: sum.waiting + pool.waiting,
            replanned: sum.replanned + pool.replanned,
        })
    }
}

/// What the sessions of a pool are for, which decides about their options on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Any statements.
    Reads,
    /// Statements that insert rows from arrays, or change single rows.
    ///
    /// The server plans each once for a connection. From the length of an array, it would otherwise
    /// expect that replanning is cheaper, and do it each time, which costs more than to store a
    /// row. Every row is found by an index: a plan that was made while a table was small would
    /// otherwise read all of it after it has grown.
    Inserts {
        /// How long a statement may wait for a lock. docs/operations.md lists it for poolers.
        lock_timeout: Duration,
    },
}

impl Work {
    /// Just-in-time compilation is off because a plan that has no index to use has a cost that
    /// makes the server compile it.
    fn session_options(self) -> String {
        match self {
            Self::Reads => String::new(),
            Self::Inserts { lock_timeout } => format!(
                " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
                 -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off -c lock_timeout={}",
                lock_timeout.as_millis()
            ),
        }
    }
}

/// Closes its connection when dropped, instead of returning it to the pool. The next user would
/// have to wait for the statement that this one left running.
struct ClosedUnlessTaken(Option<Session>);

impl Drop for ClosedUnlessTaken {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.close();
        }
    }
}

/// Makes the connections of a pool, and logs why one ended: the pool only notices that it is
/// closed.
#[derive(Debug)]
pub(crate) struct Manager {
    database: DatabaseSettings,
    config: Config,
}

impl managed::Manager for Manager {
    type Type = ClientWrapper;
    type Error = ConnectError;

    async fn create(&self) -> Result<ClientWrapper, ConnectError> {
        let (client, connection) = self.database.connect(&self.config).await?;
        let name = self.config.get_application_name().unwrap_or_default().to_owned();
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(
                    error = describe(&error),
                    connection.name = name,
                    "a connection to Postgres ended"
                );
            }
        });
        Ok(ClientWrapper::new(client, driver))
    }

    async fn recycle(
        &self,
        client: &mut ClientWrapper,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        if client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}

type Pool = managed::Pool<Manager>;

/// Connections to one database, with a time limit on each use. They are established when first
/// needed, so that a service can start while the database is down.
#[derive(Debug, Clone)]
pub struct Connections {
    pool: Pool,
    kind: StatementKind,
    replanned: Arc<AtomicU64>,
}

impl Connections {
    /// A pool whose connections the server lists under `application_name`.
    ///
    /// # Errors
    /// Never for the runtime that is built in; the pool's builder can fail for others.
    pub fn new(
        database: &DatabaseSettings,
        pool: &PoolSettings,
        work: Work,
        application_name: &str,
    ) -> Result<Self, BuildError> {
        let lifetime = pool.connection_lifetime.get();
        let not_too_old = Hook::sync_fn(move |_, metrics| {
            if metrics.age() < lifetime { Ok(()) } else { Err(HookError::message("it is too old")) }
        });
        let mut config = database.connection(application_name);
        if !database.pooler {
            config.options(pool.session_options() + &work.session_options());
        }
        let manager = Manager { database: database.clone(), config };
        let pool = Pool::builder(manager)
            .max_size(pool.max_connections.get())
            .wait_timeout(Some(pool.wait_timeout))
            .pre_recycle(not_too_old)
            // The connection that was used last has its statements prepared.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()?;
        let kind = if database.pooler { StatementKind::Unnamed } else { StatementKind::Prepared };
        Ok(Self { pool, kind, replanned: Arc::default() })
    }

    /// Runs `work` on a connection. If it does not end in time, or the caller drops it before, the
    /// connection is closed, because its statement may still be running.
    ///
    /// # Errors
    /// [`Unavailable`] after `timeout`, which includes the wait for a connection; and the errors of
    /// `work`.
    pub async fn run<T, E: From<Unavailable>>(
        &self,
        timeout: Duration,
        work: impl AsyncFnOnce(&Session) -> Result<T, E>,
    ) -> Result<T, E> {
        let ended = tokio::time::timeout(timeout, async {
            let mut held = ClosedUnlessTaken(None);
            let client = self.pool.get().await.map_err(Unavailable::from)?;
            let session = Session::new(client, self.kind, Arc::clone(&self.replanned));
            let result = work(held.0.insert(session)).await;
            drop(held.0.take());
            result
        });
        ended.await.unwrap_or_else(|_| Err(Unavailable::NoAnswer(timeout).into()))
    }

    /// Closes the connections that are not in use.
    pub fn close_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    /// The use of the pool now.
    #[must_use]
    pub fn pool_use(&self) -> PoolUse {
        let status = self.pool.status();
        let idle = status.available;
        PoolUse {
            idle,
            in_use: status.size.saturating_sub(idle),
            waiting: status.waiting,
            replanned: self.replanned.load(Ordering::Relaxed),
        }
    }
}
