//! Requests, and the responses that they must get.

use local_stack::test_database::TEST_KEY;

/// The responses that a request must get.
#[derive(Debug, Clone, Copy)]
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

/// The head of a request that presents the key of the tests.
pub(super) fn head(first: &str, headers: &[&str]) -> Vec<u8> {
    let lines = headers.iter().map(|header| format!("{header}\r\n")).collect::<String>();
    format!("{first}\r\n{lines}authorization: Bearer {TEST_KEY}\r\n\r\n").into_bytes()
}

pub(super) fn get(target: &str, headers: &[&str]) -> Vec<u8> {
    head(&format!("GET {target} HTTP/1.1"), &[&["host: localhost"], headers].concat())
}

/// The cases of one expectation.
fn all<const N: usize>(expected: Expected, requests: [(&'static str, Vec<u8>); N]) -> Vec<Case> {
    requests.into_iter().map(|(name, bytes)| (name, bytes, expected)).collect()
}

/// Requests for every port.
pub(super) fn malformed() -> Vec<Case> {
    let long = |length: usize| "y".repeat(length);
    let many =
        |count: usize| (0..count).map(|number| format!("x{number}: y\r\n")).collect::<String>();
    let with = |line: &str| get("/none", &[line]);
    let chunked =
        |rest: &[u8]| [get("/none", &["transfer-encoding: chunked"]), rest.to_vec()].concat();
    let tls = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [0; 500].as_slice()].concat();
    let h2c = ["connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMA"];
    let bare_line_feeds = get("/none", &[]).into_iter().filter(|byte| *byte != b'\r').collect();
    let refused = [
        ("HTTP/0.9", b"GET /none\r\n\r\n".to_vec()),
        ("HTTP/1.2", head("GET /none HTTP/1.2", &["host: localhost"])),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("a hello of TLS", tls),
        ("noise", (0..=255).cycle().take(4_096).collect()),
        ("no host", head("GET /none HTTP/1.1", &[])),
        ("two hosts", get("/none", &["host: y"])),
        ("bare carriage returns", b"GET /none HTTP/1.1\rhost: localhost\r\r".to_vec()),
        ("NUL in the target", get("/no\0ne", &[])),
        ("NUL in a header", with("x: a\0b")),
        ("a folded header", with("x: a\r\n b")),
        ("a space before the colon", with("x : y")),
        ("a header without a name", with(": y")),
        ("a header without a colon", with("x")),
        ("a target that is not ASCII", get("/né", &[])),
        ("two lengths", get("/none", &["content-length: 1", "content-length: 1"])),
        ("a list of lengths", get("/none", &["content-length: 1, 1"])),
        ("a negative length", get("/none", &["content-length: -1"])),
        ("a length with a sign", get("/none", &["content-length: +1"])),
        ("a length of no number", get("/none", &["content-length: 0x1"])),
        ("a length past all numbers", get("/none", &["content-length: 99999999999999999999"])),
        ("a length and chunks", get("/none", &["content-length: 1", "transfer-encoding: chunked"])),
        ("two encodings", get("/none", &["transfer-encoding: chunked"; 2])),
        ("an unknown encoding", get("/none", &["transfer-encoding: gzip, chunked"])),
        ("chunks in HTTP/1.0", head("POST /none HTTP/1.0", &["transfer-encoding: chunked"])),
    ];
    let inner = get("/none", &[]);
    let length = format!("content-length: {}", inner.len());
    let within_a_body = [get("/none", &[&length]), inner].concat();
    let not_found = [
        ("HTTP/1.0", head("GET /none HTTP/1.0", &[])),
        ("line ends first", [b"\r\n\r\n".to_vec(), get("/none", &[])].concat()),
        ("bare line feeds", bare_line_feeds),
        ("an absolute target", get("http://localhost/none", &[])),
        ("an asterisk", head("OPTIONS * HTTP/1.1", &["host: localhost"])),
        ("an asterisk to GET", get("*", &[])),
        ("a tunnel", head("CONNECT localhost:443 HTTP/1.1", &["host: localhost"])),
        ("an encoded NUL", get("/none/%00", &[])),
        ("an encoding of no text", get("/none/%ff%fe", &[])),
        ("an encoding of no byte", get("/none/%zz%", &[])),
        ("encoded dots", get("/%2e%2e/%2e%2e/etc/passwd", &[])),
        ("dots", get("/../../../etc/passwd", &[])),
        ("an encoding of no text, queried", get("/none?a=%ff&%00=%", &[])),
        ("a long target", get(&format!("/{}", long(40_000)), &[])),
        ("a long header", with(&format!("x: {}", long(30_000)))),
        ("many headers", with(many(90).trim_end())),
        ("the greatest length", get("/none", &["content-length: 18446744073709551615"])),
        ("an upgrade", get("/none", &["connection: upgrade", "upgrade: websocket"])),
        ("an upgrade to HTTP/2", get("/none", &h2c)),
        // A body is not a request, even if the response is sent before the body was read.
        ("a request in a body", within_a_body),
        ("chunks of no size", chunked(b"xyz\r\n")),
    ];
    let answered = [
        ("an absolute target without a path", get("http://localhost", &[])),
        ("another method", head("BREW /none HTTP/1.1", &["host: localhost"])),
        ("a long method", head(&format!("{} /none HTTP/1.1", long(20_000)), &["host: localhost"])),
    ];
    let too_long = [
        ("a very long header", with(&format!("x: {}", long(2_000_000)))),
        ("a header that does not end", with(&format!("x: {}", long(500_000)))[..400_000].to_vec()),
    ];
    let timed_out = [
        ("nothing but line ends", b"\r\n".repeat(20_000)),
        ("half a head, then silence", b"GET /none HTTP/1.1\r\nho".to_vec()),
    ];
    let broken_pipeline = [get("/none", &[]), b"?\r\n\r\n".to_vec(), get("/none", &[])].concat();
    let after_chunks = [b"3\r\nabc\r\n0\r\n\r\n".to_vec(), get("/none", &[])].concat();
    let others = vec![
        ("zeros", vec![0; 100_000], AtMost(400)),
        ("too many headers", with(many(200).trim_end()), Exactly(&[431])),
        ("a pipeline of 100", get("/none", &[]).repeat(100), Exactly(&[404; 100])),
        ("a pipeline that breaks", broken_pipeline, Exactly(&[404, 400])),
        ("a request after chunks", chunked(&after_chunks), Exactly(&[404, 404])),
    ];
    [
        all(Exactly(&[400]), refused),
        all(Exactly(&[404]), not_found),
        all(Answers(1), answered),
        all(AtMost(431), too_long),
        all(Exactly(&[408]), timed_out),
        others,
    ]
    .concat()
}

/// Bodies for ingest-api. A name that begins with "stored" says that a user must be stored.
pub(super) fn bodies() -> Vec<Case> {
    let post = |kind: &str, headers: &[&str], body: &[u8]| {
        let kind = format!("content-type: application/{kind}");
        let headers = [&["host: localhost", kind.as_str()], headers].concat();
        [head("POST /users HTTP/1.1", &headers), body.to_vec()].concat()
    };
    let chunked = |body: &[u8]| post("json", &["transfer-encoding: chunked"], body);
    let stored = [
        ("stored: a chunk with an extension", chunked(b"2;a=\"b\"\r\n{}\r\n0;c\r\n\r\n")),
        ("stored: a trailer", chunked(b"2\r\n{}\r\n0\r\na: b\r\n\r\n")),
    ];
    // The HTTP server reports these as it reports a body that breaks off. Sending such a body again
    // is harmless; giving up one that was cut off would lose an event. So all of them are 408.
    let broken_chunks = [
        ("a size of no number", chunked(b"zz\r\n{}\r\n0\r\n\r\n")),
        ("a negative size", chunked(b"-2\r\n{}\r\n0\r\n\r\n")),
        ("a size past all numbers", chunked(b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
        ("a chunk longer than its size", chunked(b"2\r\n{}}\r\n0\r\n\r\n")),
        ("chunks with bare line feeds", chunked(b"2\n{}\n0\n\n")),
        ("NUL in an extension", chunked(b"2;\0\r\n{}\r\n0\r\n\r\n")),
    ];
    let cut_off = [
        ("the greatest size", chunked(b"ffffffffffffffff\r\n{}")),
        ("chunks that do not end", chunked(b"2\r\n{}\r\n")),
        ("a body shorter than its length", post("json", &["content-length: 9"], b"{}")),
        (
            "an upload that breaks off within a line",
            post("x-ndjson", &["content-length: 100000"], b"{\"id\":"),
        ),
    ];
    let asked_first = post("json", &["content-length: 2", "expect: 100-continue"], b"{}");
    let noise = post("json", &["content-length: 2"], b"{}NOISE\r\n\r\n");
    let too_long = post("json", &["content-length: 9999999"], &b" ".repeat(100_000));
    let others = vec![
        ("stored: asked first", asked_first, Exactly(&[100, 201])),
        ("stored: noise after the body", noise, Exactly(&[201, 400])),
        ("a body longer than may be", too_long, AtMost(413)),
    ];
    [
        all(Exactly(&[201]), stored),
        all(Exactly(&[408]), broken_chunks),
        all(Exactly(&[408]), cut_off),
        others,
    ]
    .concat()
}
