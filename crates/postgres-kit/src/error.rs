//! What the errors of a connection mean, and what they say.

use std::error::Error;
use std::io;
use std::time::Duration;

use deadpool::managed::{PoolError, TimeoutType};
use service_kit::failure::one_line;
use tokio_postgres::error::SqlState;

use crate::connect::ConnectError;

/// The database could not do its work now. Each message has what the server, the pooler, the
/// resolver or the network reported.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No connection could be established.
    #[error("no connection to the database: {0}")]
    NoConnection(#[source] ConnectError),
    /// The other requests used all connections of the pool.
    #[error("no connection to the database: all were in use for too long")]
    AllInUse,
    /// The pool cannot be used.
    #[error("no connection to the database: {0}")]
    Pool(#[source] PoolError<ConnectError>),
    /// The connection is lost, or the server cannot do the work now.
    #[error("the database stopped the work: {}", describe(.0))]
    Interrupted(#[source] tokio_postgres::Error),
    /// The work did not end in time.
    #[error("no answer from the database within {} ms", .0.as_millis())]
    NoAnswer(Duration),
}

impl From<PoolError<ConnectError>> for Unavailable {
    fn from(error: PoolError<ConnectError>) -> Self {
        match error {
            PoolError::Backend(error) => Self::NoConnection(error),
            PoolError::Timeout(TimeoutType::Wait) => Self::AllInUse,
            error => Self::Pool(error),
        }
    }
}

/// What the server, the pooler, the resolver or the network reported, in one line.
#[must_use]
pub fn describe(error: &tokio_postgres::Error) -> String {
    // The client library's own words add nothing to what the server reports: "db error".
    error.as_db_error().map_or_else(|| one_line(error), |reported| one_line(reported))
}

/// Whether the same work may succeed a little later: the server is gone, full, stopping or not yet
/// promoted, transactions got in each other's way, or tables are being changed. Other errors will
/// repeat: a statement that was refused, and an answer that cannot be read.
#[must_use]
pub fn is_away(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        // Classes 08, 53 and 57: the server is going away, full or stopping. 40: deadlock or
        // serialization failure. 25006: a standby
        // (https://www.postgresql.org/docs/current/errcodes-appendix.html).
        Some(code) => {
            ["08", "40", "53", "57", "25006"].iter().any(|class| code.code().starts_with(class))
                || is_stale_plan(error)
        }
        // Without an answer of the server: the connection is lost, or the client cannot read the
        // answer.
        None => error.is_closed() || error.source().is_some_and(is_connection_failure),
    }
}

/// Whether a table was changed since a statement was prepared, so that its columns have other types
/// now. The transaction is rolled back, and a statement that is prepared again succeeds.
///
/// Postgres has no error code of its own for this. The name of the function does not depend on the
/// server's language, and its text is for servers and poolers that do not send the name.
#[must_use]
pub fn is_stale_plan(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        *error.code() == SqlState::FEATURE_NOT_SUPPORTED
            && (error.routine() == Some("RevalidateCachedQuery")
                || error.message().starts_with("cached plan must not change result type"))
    })
}

/// tokio-postgres and its decoders report unreadable bytes as `io::Error`, too, of these kinds.
fn is_connection_failure(source: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    source
        .downcast_ref::<io::Error>()
        .is_some_and(|error| !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_postgres::NoTls;

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

    #[tokio::test]
    async fn an_error_says_what_the_server_the_resolver_or_the_network_reported() {
        let refused =
            error_after(b"E\0\0\0\x2dSFATAL\0C08P01\0Mno such pool\0Htry b\nor c\0\0").await;
        assert_eq!(describe(&refused), "FATAL: no such pool HINT: try b or c");
        let mut config = tokio_postgres::Config::new();
        config.user("someone").host("database..invalid");
        let unknown = describe(&config.connect(NoTls).await.err().unwrap());
        assert!(unknown.contains("lookup"), "{unknown}");
        let closed = describe(&error_after(b"").await);
        assert_ne!(closed, "", "{closed}");
    }

    #[tokio::test]
    async fn a_stale_plan_is_recognised_in_any_language() {
        let stale =
            error_after(b"E\0\0\0\x34SERROR\0C0A000\0Mveraltet\0RRevalidateCachedQuery\0\0").await;
        assert!(is_stale_plan(&stale) && is_away(&stale), "{stale:?}");
        let other = error_after(b"E\0\0\0\x24SERROR\0C0A000\0Mnot implemented\0\0").await;
        assert!(!is_stale_plan(&other) && !is_away(&other), "{other:?}");
    }
}
