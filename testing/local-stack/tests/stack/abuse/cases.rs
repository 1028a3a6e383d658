//! Requests, and the responses that they must get.

/// The responses that a request must get.
#[derive(Debug)]
pub(super) enum Expected {
    /// Responses with exactly these statuses.
    Exactly(&'static [u16]),
    /// This number of responses, each with a status from 200 to 499.
    Answers(usize),
    /// One response with this status, or none: closing a connection with unread bytes may lose it.
    AtMost(u16),
}

use Expected::{Answers, AtMost, Exactly};

impl Expected {
    pub(super) fn is_met(&self, statuses: &[u16]) -> bool {
        let honest = statuses.iter().all(|status| (200..500).contains(status));
        match self {
            Exactly(expected) => statuses == *expected,
            Answers(count) => honest && statuses.len() == *count,
            AtMost(expected) => statuses.is_empty() || statuses == [*expected],
        }
    }
}

/// A name, the bytes to send, and the responses that they must get.
pub(super) type Case = (&'static str, Vec<u8>, Expected);

pub(super) fn head(first: &str, headers: &[&str]) -> Vec<u8> {
    let lines = headers.iter().map(|header| format!("{header}\r\n")).collect::<String>();
    format!("{first}\r\n{lines}\r\n").into_bytes()
}

pub(super) fn get(target: &str, headers: &[&str]) -> Vec<u8> {
    head(&format!("GET {target} HTTP/1.1"), &[&["host: x"], headers].concat())
}

/// Requests for every port.
pub(super) fn malformed() -> Vec<Case> {
    let long = |length: usize| "y".repeat(length);
    let many =
        |count: usize| (0..count).map(|number| format!("x{number}: y\r\n")).collect::<String>();
    let with = |line: &str| format!("GET /none HTTP/1.1\r\nhost: x\r\n{line}\r\n\r\n").into_bytes();
    vec![
        ("HTTP/0.9", b"GET /none\r\n\r\n".to_vec(), Exactly(&[400])),
        ("HTTP/1.0", head("GET /none HTTP/1.0", &[]), Exactly(&[404])),
        ("HTTP/1.2", head("GET /none HTTP/1.2", &["host: x"]), Exactly(&[400])),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Exactly(&[400])),
        (
            "a hello of TLS",
            [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [0; 500].as_slice()].concat(),
            Exactly(&[400]),
        ),
        ("noise", (0..=255).cycle().take(4_096).collect(), Exactly(&[400])),
        ("zeros", vec![0; 100_000], AtMost(400)),
        ("nothing but line ends", b"\r\n".repeat(20_000), Exactly(&[408])),
        ("line ends first", [b"\r\n\r\n".to_vec(), get("/none", &[])].concat(), Exactly(&[404])),
        ("no host", head("GET /none HTTP/1.1", &[]), Exactly(&[400])),
        ("two hosts", get("/none", &["host: y"]), Exactly(&[400])),
        ("bare line feeds", b"GET /none HTTP/1.1\nhost: x\n\n".to_vec(), Exactly(&[404])),
        ("bare carriage returns", b"GET /none HTTP/1.1\rhost: x\r\r".to_vec(), Exactly(&[400])),
        ("NUL in the target", get("/no\0ne", &[]), Exactly(&[400])),
        ("NUL in a header", with("x: a\0b"), Exactly(&[400])),
        ("a folded header", with("x: a\r\n b"), Exactly(&[400])),
        ("a space before the colon", with("x : y"), Exactly(&[400])),
        ("a header without a name", with(": y"), Exactly(&[400])),
        ("a header without a colon", with("x"), Exactly(&[400])),
        ("a target that is not ASCII", get("/né", &[]), Exactly(&[400])),
        ("an absolute target", get("http://elsewhere/none", &[]), Exactly(&[404])),
        ("an absolute target without a path", get("http://elsewhere", &[]), Answers(1)),
        ("an asterisk", head("OPTIONS * HTTP/1.1", &["host: x"]), Exactly(&[404])),
        ("an asterisk to GET", get("*", &[]), Exactly(&[404])),
        ("a tunnel", head("CONNECT elsewhere:443 HTTP/1.1", &["host: x"]), Exactly(&[404])),
        ("another method", head("BREW /none HTTP/1.1", &["host: x"]), Answers(1)),
        ("an encoded NUL", get("/none/%00", &[]), Exactly(&[404])),
        ("an encoding of no text", get("/none/%ff%fe", &[]), Exactly(&[404])),
        ("an encoding of no byte", get("/none/%zz%", &[]), Exactly(&[404])),
        ("encoded dots", get("/%2e%2e/%2e%2e/etc/passwd", &[]), Exactly(&[404])),
        ("dots", get("/../../../etc/passwd", &[]), Exactly(&[404])),
        ("an encoding of no text, queried", get("/none?a=%ff&%00=%", &[]), Exactly(&[404])),
        ("a long target", get(&format!("/{}", long(40_000)), &[]), Exactly(&[404])),
        (
            "a long method",
            head(&format!("{} /none HTTP/1.1", long(20_000)), &["host: x"]),
            Answers(1),
        ),
        ("a long header", with(&format!("x: {}", long(30_000))), Exactly(&[404])),
        ("a very long header", with(&format!("x: {}", long(2_000_000))), AtMost(431)),
        (
            "a header that does not end",
            with(&format!("x: {}", long(500_000)))[..400_000].to_vec(),
            AtMost(431),
        ),
        ("many headers", with(many(90).trim_end()), Exactly(&[404])),
        ("too many headers", with(many(200).trim_end()), Exactly(&[431])),
        ("two lengths", get("/none", &["content-length: 1", "content-length: 1"]), Exactly(&[400])),
        ("a list of lengths", get("/none", &["content-length: 1, 1"]), Exactly(&[400])),
        ("a negative length", get("/none", &["content-length: -1"]), Exactly(&[400])),
        ("a length with a sign", get("/none", &["content-length: +1"]), Exactly(&[400])),
        ("a length of no number", get("/none", &["content-length: 0x1"]), Exactly(&[400])),
        (
            "a length past all numbers",
            get("/none", &["content-length: 99999999999999999999"]),
            Exactly(&[400]),
        ),
        (
            "the greatest length",
            get("/none", &["content-length: 18446744073709551615"]),
            Exactly(&[404]),
        ),
        (
            "a length and chunks",
            get("/none", &["content-length: 1", "transfer-encoding: chunked"]),
            Exactly(&[400]),
        ),
        (
            "two encodings",
            get("/none", &["transfer-encoding: chunked", "transfer-encoding: chunked"]),
            Exactly(&[400]),
        ),
        (
            "an unknown encoding",
            get("/none", &["transfer-encoding: gzip, chunked"]),
            Exactly(&[400]),
        ),
        (
            "chunks in HTTP/1.0",
            head("POST /none HTTP/1.0", &["transfer-encoding: chunked"]),
            Exactly(&[400]),
        ),
        (
            "an upgrade",
            get("/none", &["connection: upgrade", "upgrade: websocket"]),
            Exactly(&[404]),
        ),
        (
            "an upgrade to HTTP/2",
            get(
                "/none",
                &["connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMA"],
            ),
            Exactly(&[404]),
        ),
        ("half a head, then silence", b"GET /none HTTP/1.1\r\nho".to_vec(), Exactly(&[408])),
        ("a pipeline of 100", get("/none", &[]).repeat(100), Exactly(&[404; 100])),
        (
            "a pipeline that breaks",
            [get("/none", &[]), b"?\r\n\r\n".to_vec(), get("/none", &[])].concat(),
            Exactly(&[404, 400]),
        ),
        // A body is not a request, even if the response is sent before the body was read.
        (
            "a request in a body",
            [get("/none", &["content-length: 29"]), get("/none", &[])].concat(),
            Exactly(&[404]),
        ),
        (
            "a request after chunks",
            [
                get("/none", &["transfer-encoding: chunked"]),
                b"3\r\nabc\r\n0\r\n\r\n".to_vec(),
                get("/none", &[]),
            ]
            .concat(),
            Exactly(&[404, 404]),
        ),
        (
            "chunks of no size",
            [get("/none", &["transfer-encoding: chunked"]), b"xyz\r\n".to_vec()].concat(),
            Exactly(&[404]),
        ),
    ]
}

/// Bodies for ingest-api. A name that begins with "stored" says that a user must be stored.
pub(super) fn bodies() -> Vec<Case> {
    let post = |headers: &[&str], body: &[u8]| {
        let headers = [&["host: x", "content-type: application/json"], headers].concat();
        [head("POST /users HTTP/1.1", &headers), body.to_vec()].concat()
    };
    let chunked = |body: &[u8]| post(&["transfer-encoding: chunked"], body);
    let lines = |body: &[u8]| {
        let headers = ["host: x", "content-type: application/x-ndjson", "content-length: 100000"];
        [head("POST /users HTTP/1.1", &headers), body.to_vec()].concat()
    };
    vec![
        (
            "stored: a chunk with an extension",
            chunked(b"2;a=\"b\"\r\n{}\r\n0;c\r\n\r\n"),
            Exactly(&[201]),
        ),
        ("stored: a trailer", chunked(b"2\r\n{}\r\n0\r\na: b\r\n\r\n"), Exactly(&[201])),
        (
            "stored: asked first",
            post(&["content-length: 2", "expect: 100-continue"], b"{}"),
            Exactly(&[100, 201]),
        ),
        (
            "stored: noise after the body",
            post(&["content-length: 2"], b"{}NOISE\r\n\r\n"),
            Exactly(&[201, 400]),
        ),
        ("a size of no number", chunked(b"zz\r\n{}\r\n0\r\n\r\n"), Exactly(&[400])),
        ("a negative size", chunked(b"-2\r\n{}\r\n0\r\n\r\n"), Exactly(&[400])),
        (
            "a size past all numbers",
            chunked(b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
            Exactly(&[400]),
        ),
        ("the greatest size", chunked(b"ffffffffffffffff\r\n{}"), Exactly(&[400])),
        ("a chunk longer than its size", chunked(b"2\r\n{}}\r\n0\r\n\r\n"), Exactly(&[400])),
        ("chunks with bare line feeds", chunked(b"2\n{}\n0\n\n"), Exactly(&[400])),
        ("NUL in an extension", chunked(b"2;\0\r\n{}\r\n0\r\n\r\n"), Exactly(&[400])),
        ("chunks that do not end", chunked(b"2\r\n{}\r\n"), Exactly(&[400])),
        ("a body shorter than its length", post(&["content-length: 9"], b"{}"), Exactly(&[400])),
        (
            "a body longer than may be",
            post(&["content-length: 9999999"], &b" ".repeat(100_000)),
            AtMost(413),
        ),
        ("an upload that breaks off within a line", lines(b"{\"id\":"), Exactly(&[400])),
    ]
}
