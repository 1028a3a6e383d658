//! The HTTP server of every port.
//!
//! It is built from the parts of [`actix_web::HttpServer`], because that one bounds only the time
//! for the head of a connection's first request. It bounds neither later heads nor the rest of a
//! body whose request was answered early, so a client could keep such a connection open as long as
//! it likes.
//!
//! Invariant: a connection on which no request is being processed is closed within [`Bounds::idle`]
//! plus `CLOSE_TIMEOUT`, and once the client sends anything, within [`Bounds::head`] plus
//! `CLOSE_TIMEOUT`, even if it keeps sending, unless the client is still receiving an answer. A
//! connection whose client accepts no data is closed within [`Bounds::unread`], and one whose
//! client does not receive a large answer, within [`Bounds::answer`], or sooner if others wait for
//! room in the budget of unsent bytes ([`crate::unsent`]).

use std::fmt::Debug;
use std::future::ready;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_http::body::{BodySize, MessageBody};
use actix_http::{ConnectionType, HttpService, Method, Request, Response, Version};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service,
    map_config,
};
use actix_web::dev::{AppConfig, Server};
use actix_web::rt::net::TcpStream;

use crate::connection::{Connection, CountedBody, Requests};
use crate::unsent::UnsentBytes;
use crate::visitors::{Visit, Visitors};

/// How long the client has to close its side of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of connections that wait to be accepted; the system may allow fewer. Further
/// ones are lost in ways that clients may not notice, so there is room for all clients that
/// reconnect at once after another replica has stopped.
const BACKLOG: i32 = 4_096;

/// The bounds of a server and its connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The number of threads that serve requests.
    pub workers: usize,
    /// The maximum number of connections per thread; further ones wait to be accepted.
    pub connections_per_worker: usize,
    /// Idle timeout: closes a connection that waits for its next request.
    pub idle: Duration,
    /// How long the head of a request may take, or the rest of a body whose request was answered
    /// early.
    pub head: Duration,
    /// How long a client may accept none of the data sent to it (Linux only).
    pub unread: Duration,
    /// How long a client may take to receive an answer of more than 16 KiB, or a part of a stream.
    pub answer: Duration,
    /// How many unsent bytes the operating system buffers (Linux only); `None` leaves that to the
    /// system.
    pub unsent_bytes: Option<u32>,
    /// Whether a client that closed its sending side still gets its answer. If it does, a client
    /// that is gone is noticed only at the second write, so this must be off for streams.
    pub answers_half_closed: bool,
    /// How long open requests may take to finish after the server is asked to stop.
    pub drain: Duration,
}

/// Rounds up, because actix-server counts in seconds.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Serves an application on a listener. `visitors` bounds the connections of each address, and
/// `unsent` is the budget of its answers.
///
/// # Errors
/// The listener cannot be used.
pub fn serve<F, I, S, B>(
    listener: TcpListener,
    bounds: Bounds,
    visitors: Visitors,
    unsent: &UnsentBytes,
    application: F,
) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    // The standard library listens with a backlog of 128.
    socket2::SockRef::from(&listener).listen(BACKLOG)?;
    let builder = Server::build()
        .workers(bounds.workers)
        .max_concurrent_connections(bounds.connections_per_worker)
        .shutdown_timeout(whole_seconds(bounds.drain))
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let unsent = unsent.clone();
    let server = builder.listen("http", listener, move || {
        let application =
            application().into_factory().map_err(|error: S::Error| error.into().error_response());
        let application = map_config(application, |()| AppConfig::default());
        let counted = apply_fn_factory(application, move |mut request: Request, service: &_| {
            // Every path that answers GET also answers HEAD
            // (<https://www.rfc-editor.org/rfc/rfc9110#section-9.1>), without help of the services.
            let omitted = request.method() == Method::HEAD;
            if omitted {
                request.head_mut().method = Method::GET;
            }
            let guard = request.conn_data::<Requests>().map(Requests::begin);
            let knows_chunks = request.version() > Version::HTTP_10;
            let answer = Service::call(service, request);
            async move {
                let mut answer: Response<B> = answer.await?.into();
                if !knows_chunks && matches!(answer.body().size(), BodySize::Stream) {
                    // Then the body ends with the connection.
                    answer.head_mut().no_chunking(true);
                    answer.head_mut().set_connection_type(ConnectionType::Close);
                }
                Ok(answer.map_body(|_, body| {
                    CountedBody::new(body.boxed(), omitted, guard, bounds.answer)
                }))
            }
        });
        let stopping = stopping.clone();
        let http = HttpService::build()
            // As in actix-web: idle connections are closed at once when the server stops.
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(bounds.idle)
            .client_request_timeout(bounds.head)
            .client_disconnect_timeout(CLOSE_TIMEOUT)
            .h1_allow_half_closed(bounds.answers_half_closed)
            .on_connect_ext(|connection: &Connection, data| {
                data.insert(connection.requests());
            })
            .h1(counted);
        let (unsent, visitors) = (unsent.clone(), visitors.clone());
        let accepted = move |stream: TcpStream| {
            let peer = stream.peer_addr().ok();
            // A client that is gone already has no address, and needs none.
            let visit =
                peer.map_or_else(|| Some(Visit::default()), |peer| visitors.admit(peer.ip()));
            // A little later than actix-http's own timeouts, which close with an answer.
            let [idle, head] = [bounds.idle, bounds.head].map(|timeout| timeout + CLOSE_TIMEOUT);
            let Bounds { unread, unsent_bytes, .. } = bounds;
            let unsent = unsent.clone();
            let connection =
                Connection::new(stream, visit, idle, head, unread, unsent_bytes, unsent);
            ready(Ok((connection, peer)))
        };
        fn_service(accepted).and_then(http)
    })?;
    Ok(server.run())
}
