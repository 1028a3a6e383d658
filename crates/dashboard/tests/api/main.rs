//! Tests of dashboard over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod session;

use std::process::Command;

use dashboard::settings::Settings;
use dashboard::startup;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use service_kit::settings::ProgramSettings as _;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running service, which stops at the end of the test.
struct Dashboard {
    url: String,
    internal_url: String,
    _secret: NamedTempFile,
    _stop: DropGuard,
}

/// The secret of the internal port.
const SECRET: &str = "this-is-no-secret-it-is-in-this-test-only";

impl Dashboard {
    fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::load().unwrap();
        settings.http.port = 0;
        settings.internal.port = 0;
        let secret = NamedTempFile::new().unwrap();
        std::fs::write(&secret, SECRET).unwrap();
        settings.internal.secret_file = secret.path().to_owned();
        change(&mut settings);
        let stop = CancellationToken::new();
        let application = startup::build(settings, stop.clone()).unwrap();
        let address = |port| format!("http://127.0.0.1:{port}");
        let (url, internal_url) =
            (address(application.port()), address(application.internal_port()));
        tokio::spawn(application.run_until_stopped());
        Self { url, internal_url, _secret: secret, _stop: stop.drop_guard() }
    }

    /// The answer of the internal port.
    async fn internal(&self, path: &str) -> reqwest::Response {
        let request = reqwest::Client::new().get(format!("{}{path}", self.internal_url));
        request.bearer_auth(SECRET).send().await.unwrap()
    }

    /// The status, headers and body that a GET with these headers returns.
    async fn get(&self, path: &str, headers: &[(&'static str, &str)]) -> (u16, HeaderMap, String) {
        let mut request = reqwest::Client::new().get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned())
    }
}

#[tokio::test]
async fn the_page_gets_the_addresses_of_the_services() {
    let same_host = Dashboard::start(|settings| {
        settings.http.allowed_hosts = vec!["counts.example".parse().unwrap()];
    });
    for (host, expected) in [
        ("counts.example:8082", "counts.example"),
        ("[::1]:8082", "[::1]"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost:8082", "localhost"),
    ] {
        let (status, _, body) = same_host.get("/config.json", &[("host", host)]).await;
        let addresses: Value = serde_json::from_str(&body).unwrap();
        let [gateway, ingest] = [8081, 8080].map(|port| format!("http://{expected}:{port}"));
        let expected = json!({ "gateway": gateway, "ingest": ingest });
        assert_eq!((status, addresses), (200, expected), "{host}");
    }
    let other_hosts = Dashboard::start(|settings| {
        settings.services.gateway_url = "https://counts.example/".to_owned();
        settings.services.ingest_url = "https://events.example".to_owned();
    });
    let (_, _, body) = other_hosts.get("/config.json", &[]).await;
    let addresses: Value = serde_json::from_str(&body).unwrap();
    let expected =
        json!({ "gateway": "https://counts.example", "ingest": "https://events.example" });
    assert_eq!(addresses, expected);
    let (_, headers, _) = other_hosts.get("/", &[]).await;
    let policy = headers["content-security-policy"].to_str().unwrap();
    let connect = "connect-src 'self' https://counts.example/ https://events.example/;";
    assert!(policy.contains(connect), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
}

/// The policy's sources for requests to the other services.
fn connect_sources(headers: &HeaderMap) -> String {
    let policy = headers["content-security-policy"].to_str().unwrap();
    let (_, sources) = policy.split_once("connect-src 'self' ").unwrap();
    sources.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_page_for_another_host_is_refused() {
    let dashboard = Dashboard::start(|_| ());
    for host in ["evil.example", "evil.example:8082", "a;script-src *"] {
        for path in ["/", "/config.json", "/none"] {
            let (status, headers, body) = dashboard.get(path, &[("host", host)]).await;
            assert_eq!(
                (status, headers["content-type"].as_bytes()),
                (421, &b"application/problem+json"[..])
            );
            let problem: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(problem["type"], "/problems/misdirected-request");
            assert_eq!(problem["setting"], "http.allowed_hosts");
            assert_eq!(
                headers["content-security-policy"],
                "default-src 'none'; frame-ancestors 'none'"
            );
        }
    }
    let (status, ..) = dashboard.get("/", &[("host", "page.localhost:8082")]).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn only_a_trusted_proxy_can_forward_the_host_of_the_policy() {
    let forwarded = [
        ("x-forwarded-host", "counts.example"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "host=evil.example"),
    ];
    let allow = |settings: &mut Settings| {
        settings.http.allowed_hosts = vec!["counts.example".parse().unwrap()];
    };
    let direct = Dashboard::start(allow);
    let (status, headers, _) = direct.get("/", &forwarded).await;
    let own = "http://127.0.0.1:8081/ http://127.0.0.1:8080/";
    assert_eq!((status, &*connect_sources(&headers)), (200, own));
    let evil = [("x-forwarded-host", "evil.example")];
    let (status, headers, _) = direct.get("/", &evil).await;
    assert_eq!((status, &*connect_sources(&headers)), (200, own));

    let behind_proxy = Dashboard::start(|settings| {
        allow(settings);
        settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let (status, headers, _) = behind_proxy.get("/", &forwarded).await;
    let public = "http://counts.example:8081/ http://counts.example:8080/";
    assert_eq!((status, &*connect_sources(&headers)), (200, public));
    let (status, ..) = behind_proxy.get("/", &evil).await;
    assert_eq!(status, 421);
}

#[tokio::test]
async fn the_page_is_revalidated_and_its_files_are_cached_forever() {
    let dashboard = Dashboard::start(|_| ());
    let (status, headers, page) =
        dashboard.get("/?unit=minute", &[("accept-encoding", "gzip")]).await;
    assert_eq!(status, 200, "{page}");
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["content-encoding"], "gzip");
    let tag = headers["etag"].to_str().unwrap();
    let cached = [("accept-encoding", "gzip"), ("if-none-match", tag)];
    let (status, _, body) = dashboard.get("/", &cached).await;
    assert_eq!((status, body.as_str()), (304, ""));

    let script = script(&dashboard).await;
    let (status, headers, _) = dashboard.get(&script, &[]).await;
    assert_eq!(status, 200);
    assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
    assert_eq!(headers["content-type"], "text/javascript; charset=utf-8");
    assert_eq!(headers["x-content-type-options"], "nosniff");

    let (status, headers, body) = dashboard.get("/assets/../../Cargo.toml", &[]).await;
    assert_eq!(status, 404, "{body}");
    assert_eq!(headers["content-type"], "application/problem+json");
    let ready = dashboard.internal("/readyz").await;
    assert_eq!(ready.status(), 200);
}

/// The name of the page's script.
async fn script(dashboard: &Dashboard) -> String {
    let (_, _, page) = dashboard.get("/", &[]).await;
    let mut parts = page.split('"');
    parts.find(|part| part.starts_with("/assets/") && part.ends_with(".js")).unwrap().to_owned()
}

#[tokio::test]
async fn clients_that_do_not_read_the_script_take_no_memory_from_others() {
    let dashboard = Dashboard::start(|settings| settings.http.max_unsent_bytes = 1);
    let script = script(&dashboard).await;
    let (_, _, plain) = dashboard.get(&script, &[]).await;
    let mut stalled = Vec::new();
    for encoding in ["gzip", "identity"].repeat(10) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        let address = dashboard.url.trim_start_matches("http://").parse().unwrap();
        let mut client = socket.connect(address).await.unwrap();
        let head = format!(
            "GET {script} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: {encoding}\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        stalled.push(client);
    }
    let metrics = dashboard.internal("/metrics").await.text().await.unwrap();
    assert!(metrics.lines().any(|line| line == "http_server_unsent_bytes 0"), "{metrics}");
    for (accepted, encoding) in [
        ("gzip, deflate, br, zstd", Some("gzip")),
        ("br", None),
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
    ] {
        let (status, headers, body) =
            dashboard.get(&script, &[("accept-encoding", accepted)]).await;
        assert_eq!((status, headers["vary"].as_bytes()), (200, &b"accept-encoding"[..]));
        let used = headers.get("content-encoding").map(|value| value.to_str().unwrap());
        assert_eq!(used, encoding, "{accepted}");
        // Both have a length, so they are not compressed while they are sent.
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        assert_eq!((length == plain.len(), body == plain), (used.is_none(), used.is_none()));
    }
}

/// Runs the program with these variables, which must make it fail, and returns what it reports.
fn failure(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashboard"));
    let output =
        command.env("RUST_BACKTRACE", "1").envs(variables.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_failure_is_reported_with_its_causes_and_without_a_backtrace() {
    assert_eq!(
        failure(&[("NEWCYCLE__HTTP__PORT", "eighty")]),
        "error: NEWCYCLE__HTTP__PORT sets http.port, which must be a whole number from 0 to \
         9007199254740992\n"
    );
    assert_eq!(
        failure(&[("NEWCYCLE_CONFIG", "/does/not/exist.toml")]),
        "error: NEWCYCLE_CONFIG names /does/not/exist.toml, which cannot be read\n  \
         caused by: No such file or directory (os error 2)\n"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let reported = failure(&[("NEWCYCLE__HTTP__PORT", &port)]);
    let expected = format!(
        "error: cannot listen on 127.0.0.1:{port}, which http.port sets: Address already in use"
    );
    assert!(reported.starts_with(&expected) && reported.lines().count() == 1, "{reported}");
}
