//! Single responses, and refusals.

use std::time::Duration;

use domain::Metric;
use local_stack::internal;
use serde_json::Value;
use service_kit::settings::NonZeroDuration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{DEADLINE, Gateway, ORIGIN, Publisher, json};

async fn gateway() -> (Publisher, Gateway) {
    let publisher = Publisher::start(1);
    publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z");
    publisher.count(Metric::Transfers, "2026-11-23T09:37:30Z");
    let version = publisher.count(Metric::Transfers, "2026-11-23T09:38:00Z");
    let gateway = Gateway::start(&publisher.url);
    gateway.until(version).await;
    (publisher, gateway)
}

#[tokio::test]
async fn a_live_window_as_json_and_csv() {
    let (_publisher, gateway) = gateway().await;
    let answers = [
        (
            "/statistics/transfers/minute",
            "application/json",
            r#"{"topic":"transfers/minute","window":1440,"buckets":[{"time":"2026-11-23T09:37:00Z","count":2},{"time":"2026-11-23T09:38:00Z","count":1}]}"#,
        ),
        (
            "/statistics/transfers/minute?last=1",
            "application/json, text/html;q=0.5",
            r#"{"topic":"transfers/minute","window":1,"buckets":[{"time":"2026-11-23T09:38:00Z","count":1}]}"#,
        ),
        (
            "/statistics?topic=transfers/year&topic=item-creation/year",
            "application/*",
            "[{\"topic\":\"transfers/year\",\"window\":100,\"buckets\":[{\"time\":\"2026-01-01T00:00:00Z\",\"count\":3}]}\n,{\"topic\":\"item-creation/year\",\"window\":100,\"buckets\":[]}]",
        ),
        (
            "/statistics/transfers/minute",
            "text/csv",
            "topic,time,count\ntransfers/minute,2026-11-23T09:37:00Z,2\ntransfers/minute,2026-11-23T09:38:00Z,1\n",
        ),
        (
            "/statistics/transfers/year",
            "*/*;q=0.1, text/csv",
            "topic,time,count\ntransfers/year,2026-01-01T00:00:00Z,3\n",
        ),
    ];
    for (path, accept, expected) in answers {
        let response = gateway.get(path, accept).await;
        assert_eq!(response.status(), 200, "{path} {accept}");
        assert_eq!(response.text().await.unwrap(), expected, "{path} {accept}");
    }
}

/// What clients in the field send.
#[tokio::test]
async fn the_most_precise_media_type_is_preferred() {
    let (_publisher, gateway) = gateway().await;
    const STREAM: &str = "text/event-stream";
    const JSON: &str = "application/json";
    const CSV: &str = "text/csv; charset=utf-8";
    let cases = [
        // axios, Angular
        ("application/json, text/plain, */*", JSON),
        // browsers
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", STREAM),
        // Java's HttpURLConnection
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", STREAM),
        ("*", STREAM),
        ("", STREAM),
        (" , ", STREAM),
        ("json", STREAM),
        ("application/json;q=1.0000", JSON),
        ("application/json;q=high", JSON),
        ("application/json;q=0.0001", JSON),
        ("application/json;q=-1", JSON),
        ("APPLICATION/JSON; Q=1", JSON),
        ("application/json;profile=\"a\"", JSON),
        ("text/csv;q=0.9, application/json;q=0.8, */*;q=0.9", CSV),
        ("text/*, */*", STREAM),
        ("text/*;q=0.5, text/csv;q=0.4, application/json;q=0.45", STREAM),
        ("*/*, text/event-stream;q=0", JSON),
        ("application/*, text/csv;q=0.9", JSON),
    ];
    for (accept, expected) in cases {
        let response = gateway.get("/statistics/transfers/day", accept).await;
        assert_eq!(response.status(), 200, "{accept}");
        assert_eq!(response.headers()["content-type"], expected, "{accept}");
    }
    // Two lines are one list.
    let request = reqwest::Client::new().get(format!("{}/statistics/transfers/day", gateway.url));
    let request = request.header("accept", "*/*;q=0.1").header("accept", "text/csv");
    assert_eq!(request.send().await.unwrap().headers()["content-type"], CSV);
}

/// Old proxies, nginx's default among them, speak HTTP/1.0, which has no chunks.
#[tokio::test]
async fn an_answer_over_http_1_0_ends_with_the_connection() {
    let (_publisher, gateway) = gateway().await;
    let mut connection =
        TcpStream::connect(gateway.url.trim_start_matches("http://")).await.unwrap();
    let request = b"GET /statistics/transfers/year HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    connection.write_all(request).await.unwrap();
    let mut text = String::new();
    while !text.contains("event: status") {
        let mut bytes = [0; 4_096];
        let length = connection.read(&mut bytes).await.unwrap();
        assert_ne!(length, 0, "the stream must stay open: {text}");
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("chunked"), "{head}");
    assert!(!head.to_lowercase().contains("keep-alive"), "{head}");
    assert!(body.starts_with("retry: ") && body.contains("\nevent: snapshot\n"), "{body}");
}

/// A balancer keeps connections for a minute or so, and may use one at any moment. A client that
/// sends the next head byte by byte must not have that long.
#[tokio::test]
async fn a_connection_may_wait_for_its_next_request_but_not_send_it_slowly() {
    let publisher = Publisher::start(1);
    let gateway = Gateway::start_with(&publisher.url, |settings| {
        settings.http.idle_timeout = NonZeroDuration::from_millis(600_000);
        settings.http.head_timeout = NonZeroDuration::from_millis(1_000);
    });
    let address = gateway.url.trim_start_matches("http://").to_owned();
    let request = b"GET /none HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = async |connection: &mut TcpStream| {
        connection.write_all(request).await.unwrap();
        let mut bytes = [0; 4_096];
        let length = connection.read(&mut bytes).await.unwrap();
        assert!(bytes[..length].starts_with(b"HTTP/1.1 404 "));
    };
    let mut waiting = TcpStream::connect(&address).await.unwrap();
    let mut slow = TcpStream::connect(&address).await.unwrap();
    answer(&mut waiting).await;
    answer(&mut slow).await;
    let closed = async {
        // A write fails once the connection is closed.
        while slow.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.expect("a slow head must be cut off");
    answer(&mut waiting).await;
}

#[tokio::test]
async fn pages_of_other_origins_can_send_any_header_and_read_those_that_help() {
    let (_publisher, gateway) = gateway().await;
    let client = reqwest::Client::new();
    let url = format!("{}/statistics/transfers/day", gateway.url);
    let sent = "cache-control, last-event-id, pragma, sentry-trace, traceparent, x-request-id";
    let preflight = client
        .request(reqwest::Method::OPTIONS, &url)
        .header("origin", "https://example.org")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", sent);
    let answer = preflight.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let allowed = answer.headers()["access-control-allow-headers"].to_str().unwrap();
    for header in sent.split(", ") {
        assert!(allowed.contains(header), "{header} in {allowed}");
    }
    let answer = client.get(&url).header("origin", "https://example.org").send().await.unwrap();
    let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap();
    for header in ["link", "retry-after", "x-request-id"] {
        assert!(exposed.to_lowercase().contains(header), "{header} in {exposed}");
    }
    assert_eq!(answer.headers()["cache-control"], "no-store, no-transform");
}

/// Sends a GET that must be refused. The detail must contain `word`.
async fn refused(
    gateway: &Gateway,
    path: &str,
    accept: &str,
    status: u16,
    field: Option<&str>,
    word: &str,
) {
    let response = gateway.get(path, accept).await;
    assert_eq!(response.status(), status, "{path}");
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
    let problem = json(response).await;
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem.get("field").and_then(Value::as_str), field, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(word), "{problem} must contain {word}");
}

#[tokio::test]
async fn a_refusal_names_what_is_wrong() {
    let (_publisher, gateway) = gateway().await;
    let topics = [
        ("", 400, Some("topic"), "at least one"),
        ("?topic=transfers", 400, Some("topic"), "transfers"),
        ("?topic=thefts/day", 400, Some("topic"), "thefts"),
        ("?topic=transfers/day&topic=transfers/day", 400, Some("topic"), "twice"),
        ("?topic=transfers/day&heartbeat=16", 400, Some("heartbeat"), "1 to 15"),
        ("?topic=transfers/day&payload=full", 400, Some("payload"), "payload"),
        ("?topic=transfers/day&from=2026-11-01T00:00:00Z", 400, Some("from"), "from"),
        ("/transfers/decade", 404, Some("unit"), "decade"),
        ("/thefts/minute", 404, None, "/statistics/thefts/minute"),
    ];
    for (path, status, field, word) in topics {
        refused(&gateway, &format!("/statistics{path}"), "*/*", status, field, word).await;
    }
    let queries = [
        ("last=0", Some("last"), "last"),
        ("last=3601", Some("last"), "1 to 3600"),
        ("last=99999999999999999999", Some("last"), "1 to 3600"),
        ("last=1&last=2", Some("last"), "more than once"),
        ("last=many", Some("last"), "many"),
        ("payload=half", Some("payload"), "half"),
        ("heartbeat=0", Some("heartbeat"), "1 to 15"),
        ("speed=9", Some("speed"), "speed"),
        ("limit=5", None, "needs from or to"),
        ("from=2026-11-01T00:00:00Z&heartbeat=2", None, "live window"),
        ("from=2026-11-01T00:00:00Z&last=5", None, "live window"),
        ("from=yesterday", Some("from"), "RFC 3339"),
        ("to=10000-01-01T00:00:00Z", Some("to"), "RFC 3339"),
        ("to=2026-11-01T00:00:00Z&limit=0", Some("limit"), "from 1"),
        ("to=2026-11-01T00:00:00Z&limit=10001", Some("limit"), "10000"),
        ("from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z", Some("from"), "later"),
    ];
    let day = "/statistics/transfers/day";
    for (query, field, word) in queries {
        refused(&gateway, &format!("{day}?{query}"), "*/*", 400, field, word).await;
    }
    let history = format!("{day}?to=2026-11-01T00:00:00Z");
    refused(&gateway, &history, "text/event-stream", 406, None, "text/csv").await;
    refused(&gateway, day, "image/png", 406, None, "image/png").await;
    refused(&gateway, day, "application/json;q=0", 406, None, "q=0").await;
    let posted =
        reqwest::Client::new().post(format!("{}/statistics", gateway.url)).send().await.unwrap();
    assert_eq!(
        (posted.status().as_u16(), &posted.headers()["allow"]),
        (405, &"GET, HEAD".parse().unwrap())
    );
}

#[tokio::test]
async fn full_payloads_are_unnamed_messages_newest_bucket_first() {
    let (publisher, gateway) = gateway().await;
    let mut client = gateway.follow("/statistics/transfers/minute?payload=full").await;
    let message = client.next().await;
    assert_eq!(message.event, None);
    let newest_first =
        r#"[{"time":"2026-11-23T09:38:00Z","count":1},{"time":"2026-11-23T09:37:00Z","count":2}]"#;
    assert_eq!(&*message.data, newest_first);
    assert_eq!(client.next().await.event.as_deref(), Some("status"));
    publisher.count(Metric::ItemCreation, "2026-11-23T09:38:00Z");
    publisher.count(Metric::Transfers, "2026-11-23T09:38:00Z");
    // Within a second of the first window, a status may come before the next one.
    let changed = loop {
        let message = client.next().await;
        if message.event.is_none() {
            break message;
        }
    };
    assert_eq!(&*changed.data, newest_first.replace("\"count\":1", "\"count\":2").as_str());
}

/// A website can let its own name lead here, and its pages would then read and write as if this
/// were the website.
#[tokio::test]
async fn only_a_request_for_an_address_localhost_or_an_allowed_host_is_answered() {
    let publisher = Publisher::start(1);
    let gateway = Gateway::start_with(&publisher.url, |settings| {
        settings.http.allowed_hosts = vec!["counts.example".parse().unwrap()];
    });
    gateway.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    let public = gateway.url.trim_start_matches("http://");
    let inside = gateway.internal_url.trim_start_matches("http://");
    let path = "/statistics/transfers/year";
    let answer = async |address: &str, first_line: String, headers: &str| {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let accept = "accept: application/json\r\nconnection: close";
        let request = format!("{first_line}\r\n{headers}{accept}\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        text
    };
    for host in ["localhost", "localhost:8081", "127.0.0.1", "[::1]:8081", "COUNTS.example:443"] {
        let text =
            answer(public, format!("GET {path} HTTP/1.1"), &format!("host: {host}\r\n")).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{host}: {text}");
    }
    let text = answer(public, format!("GET {path} HTTP/1.0"), "").await;
    assert!(text.starts_with("HTTP/1.0 200 "), "{text}");
    let target = format!("http://evil.example{path}");
    for (target, host) in [(path, "evil.example"), (path, ""), (&*target, "localhost")] {
        let host = format!("host: {host}\r\norigin: {ORIGIN}\r\n");
        let text = answer(public, format!("GET {target} HTTP/1.1"), &host).await;
        assert!(text.starts_with("HTTP/1.1 421 "), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        // So that a page of an allowed origin can show the reason.
        let allowed = format!("access-control-allow-origin: {ORIGIN}");
        assert!(head.contains(&allowed), "{head}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["type"], "/problems/misdirected-request");
        assert!(problem["detail"].as_str().unwrap().contains("http.allowed_hosts"), "{problem}");
    }
    // Other services find the internal port by any name.
    let headers = format!("host: any-name:9081\r\nauthorization: Bearer {}\r\n", internal::SECRET);
    for path in ["/readyz", "/metrics"] {
        let text = answer(inside, format!("GET {path} HTTP/1.1"), &headers).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    }
}
