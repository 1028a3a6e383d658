//! A proxy between a producer and ingest-api that causes errors.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
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
    /// The response is 503, with this `Retry-After` in seconds.
    UnavailableFor(u64),
    /// The response has this status, and is an HTML page of the proxy's own.
    Html(u16),
    /// The response has this status and this body, whose media type is JSON.
    Body(u16, &'static [u8]),
    /// The response is 301, and leads to the same path of the service.
    Redirect,
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
        // Ends with the test's process. Each connection has a thread of its own: clients also open
        // connections on which they send nothing, and those must not hold up the others.
        thread::spawn(move || {
            let (address, seen, next) = (&address, &seen, &AtomicU32::new(0));
            thread::scope(|scope| {
                for client in listener.incoming() {
                    // The client sees a broken connection, and reports it.
                    scope.spawn(move || answer(client.unwrap(), address, faults, next, seen));
                }
            });
        });
        Self { url, requests }
    }
}

/// Handles one connection with at most one request, whose number is `next`.
fn answer(
    mut client: TcpStream,
    address: &str,
    faults: &[(u32, Fault)],
    next: &AtomicU32,
    seen: &Sender<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length, mut chunked) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
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
    let number = next.fetch_add(1, Ordering::Relaxed);
    let fault = faults.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
    let _test_is_over = seen.send((Instant::now(), body.clone()));
    let mut respond = |status: u16, header: &str, body: &[u8]| {
        let length = body.len();
        write!(
            client,
            "HTTP/1.1 {status} Of the proxy\r\nconnection: close\r\n{header}\r\n\
             content-length: {length}\r\n\r\n"
        )?;
        client.write_all(body)
    };
    match fault {
        Some(Fault::Unavailable) => {
            return respond(503, &format!("retry-after: {RETRY_AFTER}"), b"");
        }
        Some(Fault::UnavailableFor(seconds)) => {
            return respond(503, &format!("retry-after: {seconds}"), b"");
        }
        Some(Fault::Html(status)) => {
            return respond(status, "content-type: text/html", b"<html><h1>Not now</h1></html>");
        }
        Some(Fault::Body(status, body)) => {
            return respond(status, "content-type: application/json", body);
        }
        Some(Fault::Redirect) => {
            let path = head.split_whitespace().nth(1).unwrap();
            return respond(301, &format!("location: http://{address}{path}"), b"");
        }
        Some(Fault::Hanging) => return io::copy(&mut reader, &mut io::sink()).map(drop),
        Some(Fault::Rejected) => {
            let errors = r#"[{"line":2,"field":"colour","detail":"is grey"}]"#;
            let body = format!(r#"{{"accepted":1,"repeated":0,"rejected":1,"errors":{errors}}}"#);
            return respond(200, "content-type: application/json", body.as_bytes());
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
