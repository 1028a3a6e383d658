//! TCP ports that a test may name before anything listens on them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;

use tokio::net::TcpSocket;

/// Reserves a TCP port on 127.0.0.1 until this process ends, and returns its number.
///
/// The reservation is a socket that is bound with `SO_REUSEADDR` and never listens. As long as it
/// is open, Linux gives the port neither to another `bind` to port 0 nor to an outgoing connection.
/// A server that sets `SO_REUSEADDR` itself (Rust's standard library, Postgres and Node do) can
/// still listen on it, and again after a restart. So a port cannot be lost between being chosen and
/// being bound. Other systems do not allow this sharing: there the socket is closed at once, and a
/// collision is only unlikely.
///
/// # Errors
/// The operating system has no free port or no free file descriptor.
pub fn reserve_port() -> io::Result<u16> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let port = socket.local_addr()?.port();
    if cfg!(target_os = "linux") {
        // Left open on purpose: a server may come back to its port at any time in a test.
        let _open_until_exit = socket.into_raw_fd();
    }
    Ok(port)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {

    use std::collections::HashSet;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_server_can_listen_on_a_reserved_port_again_after_it_had_clients() {
        let port = reserve_port().unwrap();
        for _ in 0..3 {
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // The server closes first, so its port is in TIME_WAIT when it listens again.
            drop(listener.accept().unwrap());
        }
    }

    #[test]
    fn a_reserved_port_is_given_to_nothing_else() {
        let reserved: HashSet<u16> = (0..200).map(|_| reserve_port().unwrap()).collect();
        assert_eq!(reserved.len(), 200, "each port is reserved once");
        let listeners: Vec<TcpListener> =
            (0..200).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
        for listener in &listeners {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            for address in [listener.local_addr().unwrap(), client.local_addr().unwrap()] {
                assert!(!reserved.contains(&address.port()), "{address} is reserved");
            }
        }
    }
}
