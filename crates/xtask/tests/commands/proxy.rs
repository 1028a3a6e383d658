//! What stands between a client and a service, and makes trouble on the way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// Answers the first request with 503, carries out the second without answering it, and passes on all others.
pub(crate) struct Troublemaker {
    pub(crate) url: String,
    /// When each request came, and its body.
    pub(crate) requests: Receiver<(Instant, Vec<u8>)>,
}

/// What the first request is told to wait, in seconds.
pub(crate) const RETRY_AFTER: u64 = 1;

impl Troublemaker {
    /// One before the service of this port.
    pub(crate) fn before(port: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, requests) = mpsc::channel();
        let address = format!("127.0.0.1:{port}");
        // Ends with the test's process.
        thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                // What breaks is what the client sees, and complains about.
                let _broken = answer(client.unwrap(), &address, number, &seen);
            }
        });
        Self { url, requests }
    }
}

/// One request a connection, one connection at a time.
fn answer(
    mut client: TcpStream,
    address: &str,
    number: u32,
    seen: &Sender<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let _test_is_over = seen.send((Instant::now(), body.clone()));
    if number == 0 {
        let refusal = format!(
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: {RETRY_AFTER}\r\nconnection: close\r\n"
        );
        return client.write_all((refusal + "content-length: 0\r\n\r\n").as_bytes());
    }
    let mut service = TcpStream::connect(address)?;
    service.write_all((head + "connection: close\r\n\r\n").as_bytes())?;
    service.write_all(&body)?;
    let mut answer = Vec::new();
    service.read_to_end(&mut answer)?;
    if number == 1 { Ok(()) } else { client.write_all(&answer) }
}

/// Passes on what comes, until it is cut; connections made later are passed on again.
pub(crate) struct Cable {
    pub(crate) url: String,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    /// One before the service of this port.
    pub(crate) fn before(port: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ends = Arc::new(Mutex::new(Vec::new()));
        let (held, address) = (Arc::clone(&ends), format!("127.0.0.1:{port}"));
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, service) = (client.unwrap(), TcpStream::connect(&address).unwrap());
                for (from, to) in [(&client, &service), (&service, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || io::copy(&mut from, &mut to));
                }
                held.lock().unwrap().extend([client, service]);
            }
        });
        Self { url, ends }
    }

    pub(crate) fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            let _closed = end.shutdown(Shutdown::Both);
        }
    }
}
