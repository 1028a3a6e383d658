//! Sends bytes that no HTTP client would send, and reads the responses.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::DEADLINE;

/// What happened on a connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The statuses of the responses, in their order. Each response was well formed.
    pub(crate) statuses: Vec<u16>,
    /// The time from the end of the first bytes to the end of the connection.
    pub(crate) lasted: Duration,
}

/// Connects to a port of this machine.
pub(crate) async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Sends `bytes`, then `repeated` every 100 ms, until the service closes the connection.
pub(crate) async fn exchange(port: u16, bytes: &[u8], repeated: &[u8]) -> Result<Exchange, String> {
    let (mut read, mut write) = connect(port).await.into_split();
    // A service that refuses the request early does not read all of it.
    let _refused = write.write_all(bytes).await;
    let started = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut received = Vec::new();
    let ended = async {
        loop {
            tokio::select! {
                count = read.read_buf(&mut received) => match count {
                    // Closing a connection with unread bytes resets it.
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                },
                _ = pace.tick(), if !repeated.is_empty() => {
                    let _refused = write.write_all(repeated).await;
                }
            }
        }
    };
    let closed = timeout(DEADLINE, ended).await.is_ok();
    if !closed {
        return Err(format!("is still open; responses: {}", String::from_utf8_lossy(&received)));
    }
    Ok(Exchange { statuses: statuses(&received)?, lasted: started.elapsed() })
}

/// The statuses of successive responses. Each must be complete and well formed.
fn statuses(mut bytes: &[u8]) -> Result<Vec<u16>, String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let wrong = |what: &str| format!("{what}: {}", String::from_utf8_lossy(bytes));
        let end = find(bytes, b"\r\n\r\n").ok_or_else(|| wrong("the head does not end"))?;
        let head =
            std::str::from_utf8(&bytes[..end]).map_err(|_| wrong("the head is not UTF-8"))?;
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let version = line.get(..9).ok_or_else(|| wrong("there is no status line"))?;
        if version != "HTTP/1.1 " && version != "HTTP/1.0 " {
            return Err(wrong("the HTTP version is unexpected"));
        }
        let status = line.get(9..12).and_then(|status| status.parse().ok());
        let status: u16 = status
            .filter(|_| line[12..].starts_with(' '))
            .ok_or_else(|| wrong("there is no status"))?;
        let mut length = None;
        let mut chunked = false;
        for line in lines {
            let (name, value) =
                line.split_once(": ").ok_or_else(|| wrong("a header has no colon"))?;
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || !name.bytes().all(plain) || value.bytes().any(|byte| byte < b' ')
            {
                return Err(wrong("a header is malformed"));
            }
            match name {
                "content-length" if length.is_some() => return Err(wrong("there are two lengths")),
                "content-length" => {
                    length = Some(
                        value.parse::<usize>().map_err(|_| wrong("the length is not a number"))?,
                    );
                }
                "transfer-encoding" => chunked = value == "chunked",
                _ => {}
            }
        }
        bytes = &bytes[end + 4..];
        match (status, chunked, length) {
            (100..=199 | 204 | 304, _, _) => {}
            (_, true, None) => bytes = after_chunks(bytes)?,
            (_, false, Some(length)) => {
                bytes = bytes.get(length..).ok_or("the body is shorter than its length")?;
            }
            _ => return Err(format!("the length of the body is not clear: {head}")),
        }
        all.push(status);
    }
    Ok(all)
}

/// The bytes after a chunked body.
fn after_chunks(mut bytes: &[u8]) -> Result<&[u8], String> {
    loop {
        let end = find(bytes, b"\r\n").ok_or("the size of a chunk does not end")?;
        let size = std::str::from_utf8(&bytes[..end]).ok();
        let size = size
            .and_then(|size| usize::from_str_radix(size, 16).ok())
            .ok_or("a chunk has no size")?;
        let rest = bytes.get(end + 2 + size..).ok_or("a chunk is shorter than its size")?;
        bytes = rest.strip_prefix(b"\r\n").ok_or("a chunk does not end")?;
        if size == 0 {
            return Ok(bytes);
        }
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

#[test]
fn a_malformed_response_is_an_error() {
    let good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    assert_eq!(statuses(good.as_bytes()), Ok(vec![200, 404]));
    for bad in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n",
        "HTTP/1.1 2xx OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nx\r\n0\r\n\r\n",
    ] {
        assert!(statuses(bad.as_bytes()).is_err(), "{bad}");
    }
}
