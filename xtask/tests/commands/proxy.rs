//! A proxy between a producer and ingest-api that causes errors.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

/// A proxy that fails some requests and forwards all others.
pub(crate) struct FaultyProxy {
    pub(crate) url: String,
    /// The time and the body of each request.
    pub(crate) requests: Receiver<(Instant, Vec<u8>)>,
}

/// A way to fail a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The response is 503.
    Unavailable,
    /// The response has this status, and is an HTML page of the proxy's own.
    Html(u16),
    /// The request is forwarded, but the response is lost.
    Unanswered,
    /// The request is forwarded, but the response breaks off.
    CutOff,
    /// There is no response until the client closes the connection.
    Hanging,
    /// The response to an upload says that one row is accepted and one rejected.
    Rejected,
}

/// The `Retry-After` of a 503 response, in seconds.
pub(crate) const RETRY_AFTER: u64 = 1;

impl FaultyProxy {
    /// A proxy for the service at this port that fails the requests with these numbers, from 0.
    pub(crate) fn before(port: &str, faults: &'static [(u32, Fault)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, requests) = mpsc::channel();
        let address = format!("127.0.0.1:{port}");
        // Ends with the test's process.
        thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                let fault = faults.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
                // The client sees a broken connection, and reports it.
                let _broken = answer(client.unwrap(), &address, fault, &seen);
            }
        });
        Self { url, requests }
    }
}

/// Handles one connection with one request.
fn answer(
    mut client: TcpStream,
    address: &str,
    fault: Option<Fault>,
    seen: &Sender<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length, mut chunked) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        chunked |= lower.starts_with("transfer-encoding: chunked");
        if line.trim().is_empty() {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    // A chunked body ends with an empty chunk (RFC 9112, section 7.1).
    while chunked && !body.ends_with(b"0\r\n\r\n") {
        reader.read_until(b'\n', &mut body)?;
    }
    let _test_is_over = seen.send((Instant::now(), body.clone()));
    match fault {
        Some(Fault::Unavailable) => {
            return write!(
                client,
                "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: {RETRY_AFTER}\r\n\
                 content-length: 0\r\n\r\n"
            );
        }
        Some(Fault::Html(status)) => {
            let page = "<html><h1>Not now</h1></html>";
            return write!(
                client,
                "HTTP/1.1 {status} Not now\r\nconnection: close\r\ncontent-type: text/html\r\n\
                 content-length: {}\r\n\r\n{page}",
                page.len()
            );
        }
        Some(Fault::Hanging) => return io::copy(&mut reader, &mut io::sink()).map(drop),
        Some(Fault::Rejected) => {
            let errors = r#"[{"line":2,"field":"colour","detail":"is grey"}]"#;
            let body = format!(r#"{{"accepted":1,"repeated":0,"rejected":1,"errors":{errors}}}"#);
            return write!(
                client,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        Some(Fault::Unanswered | Fault::CutOff) | None => {}
    }
    let mut service = TcpStream::connect(address)?;
    service.write_all((head + "connection: close\r\n\r\n").as_bytes())?;
    service.write_all(&body)?;
    let mut answer = Vec::new();
    service.read_to_end(&mut answer)?;
    match fault {
        Some(Fault::Unanswered) => Ok(()),
        Some(Fault::CutOff) => client.write_all(&answer[..answer.len() - 1]),
        _ => client.write_all(&answer),
    }
}
