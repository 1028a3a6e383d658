//! Connects to the one of several servers that accepts writes.
//!
//! `database.host` and `database.port` list servers as libpq reads them, and the name of a server
//! may have several addresses
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS>).
//!
//! Invariants:
//! - Every connection leads to a server that accepted writes when it was made. A standby's data may
//!   be old, its snapshots lack the transactions in progress, and it refuses LISTEN.
//! - A server that is silent delays the others by [`HEAD_START`], and no longer.
//! - The resolution of a name ends within `database.connect_timeout`, and so does each attempt,
//!   which includes TLS and authentication.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

use crate::error::{describe, is_away};
use crate::settings::{DatabaseSettings, Server};
use crate::tls::Connection;

/// How long a server is tried alone, before the next one is tried next to it (RFC 8305, section 5:
/// the connection attempt delay).
const HEAD_START: Duration = Duration::from_millis(250);

/// A new connection, and what must be polled to drive it.
type Connected = (Client, Connection);

/// Why no connection to a server that accepts writes was made.
#[derive(Debug)]
pub struct ConnectError {
    /// What became of each address, in the order in which they failed.
    attempts: Vec<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    address: String,
    failure: Failure,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", describe(.0))]
    Refused(#[source] tokio_postgres::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
}

impl ConnectError {
    /// What a server reported, if one did; of several, the first.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        self.attempts.iter().find_map(|attempt| match &attempt.failure {
            Failure::Refused(error) => error.code(),
            Failure::Silent(_) => None,
        })
    }

    /// Whether the same may succeed a little later, as [`is_away`].
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.attempts.iter().any(|attempt| match &attempt.failure {
            Failure::Refused(error) => is_away(error),
            Failure::Silent(_) => true,
        })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Attempt { address, failure }) in self.attempts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{address}: {failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {}

impl DatabaseSettings {
    /// Connects with the settings of a [`connection`](Self::connection) to a server that accepts
    /// writes. The servers are tried in the order of the settings.
    ///
    /// # Errors
    /// No server answers in time, accepts this role, or accepts writes; or TLS is required, and a
    /// server has none, or could not prove its name.
    pub async fn connect(&self, config: &Config) -> Result<Connected, ConnectError> {
        let connected = race(self.servers(), |server| self.connect_to(server, config)).await;
        connected
            .map_err(|failed| ConnectError { attempts: failed.into_iter().flatten().collect() })
    }

    /// Connects to any address of one server.
    async fn connect_to(
        &self,
        server: Server<'_>,
        config: &Config,
    ) -> Result<Connected, Vec<Attempt>> {
        let Server { host, port } = server;
        let mut config = config.clone();
        config.host(host).port(port).ssl_mode(self.tokio_ssl_mode(host));
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let addresses = self.resolve(server).await.map_err(|failed| vec![failed])?;
        if addresses.is_empty() {
            // The client library opens the socket, or resolves the name again, and reports why it
            // cannot.
            return self.attempt(config, server.to_string()).await.map_err(|failed| vec![failed]);
        }
        let is_one = addresses.len() == 1;
        race(addresses, |address| {
            let mut config = config.clone();
            config.hostaddr(address.ip());
            let shown =
                if is_one { server.to_string() } else { format!("{server} ({})", address.ip()) };
            self.attempt(config, shown)
        })
        .await
    }

    /// The addresses of a server. None if it is a Unix socket, or if its name has none.
    async fn resolve(&self, server: Server<'_>) -> Result<Vec<SocketAddr>, Attempt> {
        if server.is_unix_socket() {
            return Ok(Vec::new());
        }
        let limit = self.connect_timeout.get();
        let found = tokio::net::lookup_host((server.host, server.port));
        match tokio::time::timeout(limit, found).await {
            Ok(found) => Ok(found.into_iter().flatten().collect()),
            Err(_elapsed) => {
                Err(Attempt { address: server.to_string(), failure: Failure::Silent(limit) })
            }
        }
    }

    async fn attempt(&self, config: Config, address: String) -> Result<Connected, Attempt> {
        let limit = self.connect_timeout.get();
        let connecting = config.connect(self.sslrootcert.connector());
        let failure = match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => Failure::Refused(error),
            Err(_) => Failure::Silent(limit),
        };
        Err(Attempt { address, failure })
    }
}

/// Tries one candidate after another: each once the one before it has failed, or has had its
/// [`HEAD_START`]. Returns the first success, or all failures.
async fn race<C, T, E, F: Future<Output = Result<T, E>>>(
    candidates: impl IntoIterator<Item = C>,
    attempt: impl Fn(C) -> F,
) -> Result<T, Vec<E>> {
    let mut waiting = candidates.into_iter().peekable();
    let mut running: FuturesUnordered<F> = waiting.next().map(&attempt).into_iter().collect();
    let mut failures = Vec::new();
    loop {
        tokio::select! {
            ended = running.next() => match ended {
                Some(Ok(success)) => return Ok(success),
                Some(Err(failure)) => failures.push(failure),
                None => return Err(failures),
            },
            () = tokio::time::sleep(HEAD_START), if waiting.peek().is_some() => {}
        }
        running.extend(waiting.next().map(&attempt));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;
    use crate::error::Unavailable;

    /// How a candidate of these tests ends, and after how many milliseconds.
    type Candidate = (u64, Result<&'static str, &'static str>);

    const SILENT: Candidate = (u64::MAX, Err("silent"));

    /// The result of a race, and when each candidate began and the race ended, in milliseconds.
    async fn raced(
        candidates: &[Candidate],
    ) -> (Result<&'static str, Vec<&'static str>>, Vec<u128>) {
        let began = Instant::now();
        let times = RefCell::new(Vec::new());
        let result = race(candidates, |&(after, ended)| {
            times.borrow_mut().push(began.elapsed().as_millis());
            async move {
                if after == u64::MAX {
                    pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(after)).await;
                ended
            }
        })
        .await;
        let mut times = times.into_inner();
        times.push(began.elapsed().as_millis());
        (result, times)
    }

    #[test]
    fn an_error_says_what_became_of_each_address() {
        let limit = Duration::from_secs(1);
        let silent = |address: &str| Attempt {
            address: address.to_owned(),
            failure: Failure::Silent(limit),
        };
        let error = ConnectError { attempts: vec![silent("a:5432"), silent("b:5432 (::1)")] };
        assert_eq!(
            Unavailable::NoConnection(error).to_string(),
            "no connection to the database: a:5432: no answer within 1000 ms; \
             b:5432 (::1): no answer within 1000 ms"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_delays_the_others_by_its_head_start_only() {
        let (won, times) = raced(&[SILENT, SILENT, (10, Ok("third"))]).await;
        assert_eq!((won, times), (Ok("third"), vec![0, 250, 500, 510]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_does_not_delay_the_others() {
        let (won, times) = raced(&[(3, Err("standby")), SILENT, (10, Ok("third"))]).await;
        assert_eq!((won, times), (Ok("third"), vec![0, 3, 253, 263]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_servers_after_the_first_that_answers_are_not_tried() {
        let (won, times) = raced(&[(249, Ok("first")), (0, Ok("second"))]).await;
        assert_eq!((won, times), (Ok("first"), vec![0, 249]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_may_still_win() {
        let (won, _) = raced(&[(300, Ok("first")), (100, Err("second"))]).await;
        assert_eq!(won, Ok("first"));
    }

    #[tokio::test(start_paused = true)]
    async fn all_failures_are_returned() {
        let (failed, _) = raced(&[(300, Err("first")), (1, Err("second"))]).await;
        assert_eq!(failed, Err(vec!["second", "first"]));
        assert_eq!(raced(&[]).await.0, Err(vec![]));
    }
}
