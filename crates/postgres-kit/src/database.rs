//! A pool of connections to Postgres, with a time limit on each use.

use std::error::Error;
use std::io;
use std::time::Duration;

use deadpool_postgres::{
    BuildError, Client, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError,
    RecyclingMethod, Runtime,
};
use tokio_postgres::NoTls;
use tokio_postgres::config::TargetSessionAttrs;

pub use crate::settings::{DatabaseSettings, PoolSettings};

/// The database did not answer in time.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No connection could be established, or none was free in time.
    #[error("no connection to the database: {0}")]
    NoConnection(#[from] PoolError),
    /// The work did not end in time.
    #[error("no answer from the database within {} ms", .0.as_millis())]
    NoAnswer(Duration),
}

/// Whether the same work may succeed a little later: the server is gone, full, stopping or not yet
/// promoted, or transactions got in each other's way. Other errors will repeat: a statement that
/// was refused, and an answer that cannot be read.
#[must_use]
pub fn is_away(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        // Classes 08, 53 and 57: the server is going away, full or stopping. 40: deadlock or
        // serialization failure. 25006: a standby
        // (https://www.postgresql.org/docs/current/errcodes-appendix.html).
        Some(code) => {
            ["08", "40", "53", "57", "25006"].iter().any(|class| code.code().starts_with(class))
        }
        // Without an answer of the server: the connection is lost, or the client cannot read the
        // answer.
        None => error.is_closed() || error.source().is_some_and(is_connection_failure),
    }
}

/// tokio-postgres and its decoders report unreadable bytes as `io::Error`, too, of these kinds.
fn is_connection_failure(source: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    source
        .downcast_ref::<io::Error>()
        .is_some_and(|error| !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof))
}

/// The use of a pool at one moment.
#[derive(Debug, Clone, Copy)]
pub struct PoolUse {
    /// Connections not in use.
    pub idle: usize,
    /// Connections in use.
    pub in_use: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
}

/// Closes its connection when dropped, instead of returning it to the pool. The next user would
/// have to wait for the statement that this one left running.
struct ClosedUnlessTaken(Option<Object>);

impl Drop for ClosedUnlessTaken {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

/// Connections to one database, with a time limit on each use. They are established when first
/// needed, so that a service can start while the database is down.
#[derive(Debug, Clone)]
pub struct Connections {
    pool: Pool,
}

impl Connections {
    /// A pool whose connections the server lists under `application_name`.
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
        // A standby's data may be old, and a failover may lose it.
        connection.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let manager = Manager::from_config(connection, NoTls, recycling);
        let pool = Pool::builder(manager)
            .max_size(pool.max_connections.get())
            .wait_timeout(Some(pool.wait_timeout))
            // tokio-postgres' own timeout covers the socket only; this one includes authentication.
            .create_timeout(Some(database.connect_timeout.get()))
            .recycle_timeout(Some(database.connect_timeout.get()))
            .pre_recycle(not_too_old)
            .runtime(Runtime::Tokio1)
            .build()?;
        Ok(Self { pool })
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
        work: impl AsyncFnOnce(&Client) -> Result<T, E>,
    ) -> Result<T, E> {
        let ended = tokio::time::timeout(timeout, async {
            let mut held = ClosedUnlessTaken(None);
            let result =
                work(held.0.insert(self.pool.get().await.map_err(Unavailable::from)?)).await;
            drop(held.0.take());
            result
        });
        ended.await.unwrap_or_else(|_| Err(Unavailable::NoAnswer(timeout).into()))
    }

    /// The use of the pool now.
    #[must_use]
    pub fn pool_use(&self) -> PoolUse {
        let status = self.pool.status();
        let idle = status.available;
        PoolUse { idle, in_use: status.size.saturating_sub(idle), waiting: status.waiting }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The error of a connection to a server that reads the startup message, and answers with these
    /// bytes.
    async fn error_after(answer: &[u8]) -> tokio_postgres::Error {
        let (client, mut server) = tokio::io::duplex(1_024);
        let mut config = tokio_postgres::Config::new();
        let connecting = config.user("someone").connect_raw(client, NoTls);
        let serving = async {
            server.read_u8().await.unwrap();
            server.write_all(answer).await.unwrap();
            drop(server);
        };
        tokio::join!(connecting, serving).0.err().unwrap()
    }

    #[tokio::test]
    async fn a_server_that_is_gone_is_away() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = tokio_postgres::Config::new();
        let refused =
            config.host("127.0.0.1").port(port).user("someone").connect(NoTls).await.err().unwrap();
        assert!(is_away(&refused), "{refused:?}");
        let closed = error_after(b"").await;
        assert!(is_away(&closed), "{closed:?}");
        let stopping = error_after(b"E\0\0\0\x1dSFATAL\0C57P03\0Mstarting\0\0").await;
        assert!(is_away(&stopping), "{stopping:?}");
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_is_not_away() {
        let unreadable = error_after(b"R\0\0\0\x05x").await;
        assert!(!is_away(&unreadable), "{unreadable:?}");
        let unexpected = error_after(b"I\0\0\0\x04").await;
        assert!(!is_away(&unexpected), "{unexpected:?}");
        let refused = error_after(b"E\0\0\0\x1cSFATAL\0C28P01\0Mrefused\0\0").await;
        assert!(!is_away(&refused), "{refused:?}");
    }
}
