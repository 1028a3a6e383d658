//! The HTTP server of every port.
//!
//! It is put together from the parts of [`actix_web::HttpServer`], which bounds the time that a client may take for the
//! head of the first request of its connection, and not for those that follow, nor for the rest of a body whose request
//! was answered early: such a connection would stay for as long as the client likes.
//!
//! Invariant: a connection on which no request is under way is closed within [`Bounds::idle`] and `CLOSING`, whatever the
//! client sends meanwhile, unless it still takes an answer; and one whose client takes nothing of what it is sent within
//! [`Bounds::unread`].

use std::fmt::Debug;
use std::future::ready;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::{HttpService, Method, Request, Response};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service, map_config,
};
use actix_web::dev::{AppConfig, Server};
use actix_web::rt::net::TcpStream;

use crate::connection::{Connection, Counted, Requests};

/// How long the other side has to close a connection once it was told.
const CLOSING: Duration = Duration::from_secs(1);

/// Connections that wait to be accepted; the system may allow fewer. More are lost in ways that a client may not notice, so
/// there is room for all who come back at once after a server has gone.
const WAITING: i32 = 4_096;

/// What bounds a server and its connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Threads that serve requests.
    pub workers: usize,
    /// Connections to one of them; more wait to be accepted.
    pub connections_per_worker: usize,
    /// How long a connection may have no request under way: before the first, between two, while the head of one comes in,
    /// and while the rest of a body does whose request was answered already.
    pub idle: Duration,
    /// How long a client may take nothing of what it is sent, on Linux.
    pub unread: Duration,
    /// How much the operating system keeps of an answer before it is sent, on Linux; `None`: as much as it likes.
    pub unsent_bytes: Option<u32>,
    /// Whether a client that will send nothing more is still answered. Where it is, one that has gone is only noticed when
    /// it is sent something twice, so this is not for streams.
    pub answers_half_closed: bool,
    /// How long requests under way may take to end once the server is asked to stop.
    pub drain: Duration,
}

/// Rounds up, because actix-server counts in seconds.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Serves an application on a listener, within these bounds.
///
/// # Errors
/// The listener cannot be used.
pub fn serve<F, I, S, B>(listener: TcpListener, bounds: Bounds, application: F) -> io::Result<Server>
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
    // It listens already, but as the standard library has it: for 128.
    socket2::SockRef::from(&listener).listen(WAITING)?;
    let builder = Server::build()
        .workers(bounds.workers)
        .max_concurrent_connections(bounds.connections_per_worker)
        .shutdown_timeout(whole_seconds(bounds.drain))
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let server = builder.listen("http", listener, move || {
        let application =
            application().into_factory().map_err(|error: S::Error| error.into().error_response());
        let application = map_config(application, |()| AppConfig::default());
        let counted = apply_fn_factory(application, |mut request: Request, service: &_| {
            // Whatever answers GET answers HEAD (<https://www.rfc-editor.org/rfc/rfc9110#section-9.1>), and no service
            // needs to know.
            let omitted = request.method() == Method::HEAD;
            if omitted {
                request.head_mut().method = Method::GET;
            }
            let under_way = request.conn_data::<Requests>().map(Requests::begin);
            let answer = Service::call(service, request);
            async move {
                let answer: Response<B> = answer.await?.into();
                Ok(answer.map_body(|_, body| Counted::new(body.boxed(), omitted, under_way)))
            }
        });
        let stopping = stopping.clone();
        let http = HttpService::build()
            // As actix-web has it: connections without a request under way are closed at once when it stops.
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(bounds.idle)
            .client_request_timeout(bounds.idle)
            .client_disconnect_timeout(CLOSING)
            .h1_allow_half_closed(bounds.answers_half_closed)
            .on_connect_ext(|connection: &Connection, data| {
                data.insert(connection.requests());
            })
            .h1(counted);
        let accepted = move |stream: TcpStream| {
            let peer = stream.peer_addr().ok();
            // A little later than what actix bounds by itself, which closes with an answer.
            let patience = bounds.idle + CLOSING;
            ready(Ok((Connection::new(stream, patience, bounds.unread, bounds.unsent_bytes), peer)))
        };
        fn_service(accepted).and_then(http)
    })?;
    Ok(server.run())
}
