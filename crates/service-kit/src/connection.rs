//! What is set on a client's connection once it is accepted.

use std::any::Any;

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;

/// Bounds what the operating system keeps of an answer before it is sent, for [`on_connect`].
///
/// Without a bound Linux keeps up to some megabytes for a client that is slow: memory that no setting counts, and for a
/// stream minutes of states that have long been overtaken, where conflation could have made one of them. What was sent
/// and awaits its acknowledgement is not bounded, so a fast client far away loses nothing. Only Linux has such a
/// bound (`TCP_NOTSENT_LOWAT`, <https://man7.org/linux/man-pages/man7/tcp.7.html>); elsewhere nothing is set.
///
/// [`on_connect`]: actix_web::HttpServer::on_connect
pub fn limit_unsent(bytes: u32) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync {
    move |connection, _| {
        if let Some(connection) = connection.downcast_ref::<TcpStream>() {
            set(connection, bytes);
        }
    }
}

#[cfg(target_os = "linux")]
fn set(connection: &TcpStream, bytes: u32) {
    if let Err(error) = socket2::SockRef::from(connection).set_tcp_notsent_lowat(bytes) {
        tracing::debug!(error.message = %error, "what is kept for a connection cannot be bounded");
    }
}

#[cfg(not(target_os = "linux"))]
fn set(_: &TcpStream, _: u32) {}
