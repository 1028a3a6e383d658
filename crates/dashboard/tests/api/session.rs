//! The session of a browser.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use access_kit::control::AccessControl;
use access_kit::distribution;
use access_kit::key::Key;
use access_kit::keyring::KeyRecord;
use actix_web::{App, HttpServer};
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Dashboard;

/// Longer than a list of keys travels.
const DEADLINE: Duration = Duration::from_secs(20);

/// A service that has the list of keys.
struct Upstream {
    access: Arc<AccessControl>,
    url: String,
}

impl Upstream {
    fn start() -> Self {
        let access = Arc::new(AccessControl::for_followers());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = distribution::configure(Arc::clone(&access), CancellationToken::new());
        let server = HttpServer::new(move || App::new().configure(routes.clone()));
        let server = server.workers(1).disable_signals().listen(listener).unwrap();
        tokio::spawn(server.run());
        Self { access, url }
    }

    /// These keys, each with the time when it expires and the time when it was revoked.
    fn set(&self, version: i64, keys: &[(&Key, Option<OffsetDateTime>, Option<OffsetDateTime>)]) {
        let record = |(number, (key, expires_at, ended_at)): (usize, &(&Key, _, _))| KeyRecord {
            number: i32::try_from(number).unwrap(),
            id: key.id(),
            name: format!("key-{number}"),
            hash: key.hash(),
            scopes: vec!["statistics:read".to_owned()],
            expires_at: *expires_at,
            ended_at: *ended_at,
            requests_per_second: None,
            streams: None,
        };
        let records = keys.iter().enumerate().map(record).collect();
        self.access.replace(version, records, Instant::now());
    }

    /// A dashboard that follows this service.
    fn dashboard(&self) -> Dashboard {
        Dashboard::start(|settings| {
            settings.upstream.addresses = vec![self.url.parse().unwrap()];
            settings.http.allowed_hosts = vec!["counts.example".parse().unwrap()];
        })
    }
}

/// The answer to a request from a page.
struct Answer {
    status: u16,
    headers: HeaderMap,
    problem: Value,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let problem = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
        Self { status, headers, problem }
    }

    fn kind(&self) -> (u16, &str) {
        (self.status, self.problem["type"].as_str().unwrap_or_default())
    }

    fn cookie(&self) -> Option<&str> {
        self.headers.get("set-cookie").map(|cookie| cookie.to_str().unwrap())
    }
}

impl Dashboard {
    /// The origin of the page.
    fn origin(&self) -> &str {
        &self.url
    }

    /// Sends a request with only these headers.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: String,
    ) -> Answer {
        let mut request =
            reqwest::Client::new().request(method, format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// Logs in as the page does.
    async fn log_in(&self, key: &str) -> Answer {
        let headers = [
            ("origin", self.origin()),
            ("content-type", "application/json"),
            ("sec-fetch-site", "same-origin"),
        ];
        self.send(Method::POST, "/session", &headers, json!({ "key": key }).to_string()).await
    }

    /// Renews the session of this cookie.
    async fn renew(&self, cookie: &str) -> Answer {
        let headers = [("origin", self.origin()), ("cookie", cookie)];
        self.send(Method::POST, "/session", &headers, String::new()).await
    }

    async fn log_in_until(&self, key: &Key, status: u16) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.log_in(key.expose()).await;
            if answer.status == status {
                return answer;
            }
            assert!(Instant::now() < deadline, "{:?}", answer.kind());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn port(&self) -> &str {
        self.url.rsplit(':').next().unwrap()
    }
}

const AGE: u32 = 400 * 86_400;

#[tokio::test]
async fn a_key_becomes_a_cookie_that_no_script_reads() {
    let upstream = Upstream::start();
    let key = Key::generate();
    upstream.set(1, &[(&key, None, None)]);
    let dashboard = upstream.dashboard();
    let answer = dashboard.log_in_until(&key, 204).await;
    let expected = format!(
        "newcycle-{}={}; Path=/; Max-Age={AGE}; HttpOnly; SameSite=Strict",
        dashboard.port(),
        key.expose()
    );
    assert_eq!(answer.cookie(), Some(expected.as_str()));
    assert_eq!(answer.headers["cache-control"], "no-store");

    let session = format!("a=b; newcycle-{}={}", dashboard.port(), key.expose());
    let renewed = dashboard.renew(&session).await;
    assert_eq!((renewed.status, renewed.cookie()), (204, Some(expected.as_str())));
    // The cookie of another stack on this machine is none of this page's.
    let other = format!("newcycle-1={0}; __Host-newcycle={0}", key.expose());
    let none = dashboard.renew(&other).await;
    assert_eq!((none.kind(), none.cookie()), ((401, "/problems/no-credential"), None));

    let headers = [("origin", dashboard.origin()), ("cookie", session.as_str())];
    let ended = dashboard.send(Method::DELETE, "/session", &headers, String::new()).await;
    let removed =
        format!("newcycle-{}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict", dashboard.port());
    assert_eq!((ended.status, ended.cookie()), (204, Some(removed.as_str())));
    assert_eq!(ended.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_key_that_is_not_valid_makes_no_session() {
    let upstream = Upstream::start();
    let [valid, revoked, expired, unknown] = std::array::from_fn(|_| Key::generate());
    let dashboard = upstream.dashboard();
    let cookie = |key: &Key| format!("newcycle-{}={}", dashboard.port(), key.expose());

    // Without a list of keys, a client must keep its key.
    let early = dashboard.log_in(valid.expose()).await;
    assert_eq!((early.kind(), early.cookie()), ((503, "/problems/unavailable"), None));
    assert_eq!(early.headers["cache-control"], "no-store");
    let early = dashboard.renew(&cookie(&valid)).await;
    assert_eq!((early.kind(), early.cookie()), ((503, "/problems/unavailable"), None));

    let past = Some(OffsetDateTime::now_utc() - time::Duration::HOUR);
    upstream.set(1, &[(&valid, None, None), (&revoked, None, past), (&expired, past, None)]);
    dashboard.log_in_until(&valid, 204).await;
    for (key, why) in [(&revoked, "revoked"), (&expired, "expired"), (&unknown, "not a key")] {
        let refused = dashboard.log_in(key.expose()).await;
        assert_eq!(refused.kind(), (401, "/problems/invalid-credential"));
        assert!(refused.problem["detail"].as_str().unwrap().contains(why), "{}", refused.problem);
        assert_eq!(refused.cookie(), None, "the session of another key stays");
        // A cookie that was refused is dropped.
        let refused = dashboard.renew(&cookie(key)).await;
        assert_eq!(refused.kind(), (401, "/problems/invalid-credential"));
        assert!(refused.cookie().unwrap().contains("=; Path=/; Max-Age=0;"));
    }
    let no_key = dashboard.renew(&format!("newcycle-{}=x", dashboard.port())).await;
    assert_eq!(no_key.kind(), (401, "/problems/invalid-credential"));
    assert!(no_key.cookie().unwrap().contains("Max-Age=0"));

    // The list is followed.
    upstream.set(2, &[(&valid, None, past)]);
    dashboard.log_in_until(&valid, 401).await;
}

#[tokio::test]
async fn only_a_short_json_body_with_a_key_is_read() {
    let dashboard = Upstream::start().dashboard();
    let key = Key::generate();
    let whole = json!({ "key": key.expose() }).to_string();
    let half = json!({ "key": &key.expose()[..40] }).to_string();
    let twice = json!({ "key": key.expose(), "name": "x" }).to_string();
    let long = format!("{whole}{}", " ".repeat(1_000));
    for (content_type, body, expected) in [
        ("application/json", whole.as_str(), (503, "/problems/unavailable")),
        ("application/json; charset=utf-8", &whole, (503, "/problems/unavailable")),
        ("application/json", &half, (400, "/problems/invalid-request")),
        ("application/json", &twice, (400, "/problems/invalid-request")),
        ("application/json", key.expose(), (400, "/problems/invalid-request")),
        ("application/json", "{", (400, "/problems/invalid-request")),
        ("application/json", &long, (413, "/problems/too-long")),
        ("text/plain", &whole, (415, "/problems/unsupported-media-type")),
        ("application/x-www-form-urlencoded", &whole, (415, "/problems/unsupported-media-type")),
        ("", &whole, (415, "/problems/unsupported-media-type")),
    ] {
        let headers = [("origin", dashboard.origin()), ("content-type", content_type)];
        let answer = dashboard.send(Method::POST, "/session", &headers, body.to_owned()).await;
        assert_eq!(answer.kind(), expected, "{content_type}: {body}");
        assert_eq!(answer.cookie(), None);
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    let in_address = format!("/session?key={}", key.expose());
    let headers = [("origin", dashboard.origin()), ("content-type", "application/json")];
    let answer = dashboard.send(Method::POST, &in_address, &headers, whole).await;
    assert_eq!(answer.kind(), (400, "/problems/credential-in-address"));
    let (status, headers, _) = dashboard.get("/session", &[]).await;
    assert_eq!((status, &headers["allow"].as_bytes()), (405, &&b"POST, DELETE"[..]));
}

#[tokio::test]
async fn another_page_cannot_log_in_or_out() {
    let upstream = Upstream::start();
    let key = Key::generate();
    upstream.set(1, &[(&key, None, None)]);
    let dashboard = upstream.dashboard();
    dashboard.log_in_until(&key, 204).await;
    let own = dashboard.origin();
    let other_port = "http://127.0.0.1:1";
    let other_scheme = own.replace("http:", "https:");
    let other_name = own.replace("127.0.0.1", "localhost");
    let suffixed = format!("{own}.evil.example");
    let json = ("content-type", "application/json");
    for headers in [
        &[json][..],
        &[json, ("sec-fetch-site", "same-origin")],
        &[json, ("origin", other_port)],
        &[json, ("origin", &other_scheme)],
        &[json, ("origin", &other_name)],
        &[json, ("origin", &suffixed)],
        &[json, ("origin", "null")],
        &[json, ("origin", "https://evil.example")],
        &[json, ("origin", own), ("origin", other_port)],
        &[json, ("origin", own), ("sec-fetch-site", "same-site")],
        &[json, ("origin", own), ("sec-fetch-site", "cross-site")],
        &[json, ("origin", own), ("sec-fetch-site", "none")],
        // No proxy is trusted here.
        &[json, ("origin", "https://counts.example"), ("x-forwarded-host", "counts.example")],
    ] {
        let body = serde_json::json!({ "key": key.expose() }).to_string();
        for (method, body) in
            [(Method::POST, body), (Method::POST, String::new()), (Method::DELETE, String::new())]
        {
            let answer = dashboard.send(method, "/session", headers, body).await;
            assert_eq!(answer.kind(), (403, "/problems/foreign-origin"), "{headers:?}");
            assert_eq!(answer.cookie(), None);
            assert_eq!(answer.headers["cache-control"], "no-store");
        }
    }
    let headers = [json, ("host", "evil.example"), ("origin", "http://evil.example")];
    let rebound = dashboard.send(Method::POST, "/session", &headers, String::new()).await;
    assert_eq!(rebound.kind(), (421, "/problems/misdirected-request"));
}

#[tokio::test]
async fn there_is_no_login_over_http_beyond_loopback() {
    let upstream = Upstream::start();
    let key = Key::generate();
    upstream.set(1, &[(&key, None, None)]);
    let dashboard = upstream.dashboard();
    dashboard.log_in_until(&key, 204).await;
    let body = json!({ "key": key.expose() }).to_string();
    for (host, cookie) in [
        ("counts.example:8082", None),
        ("counts.example", None),
        ("10.1.2.3:8082", None),
        ("[2001:db8::1]:8082", None),
        ("localhost:8082", Some("newcycle-8082")),
        ("[::1]:8082", Some("newcycle-8082")),
        ("page.localhost:18082", Some("newcycle-18082")),
        ("127.0.0.1", Some("newcycle-80")),
    ] {
        let origin = format!("http://{host}");
        let headers =
            [("host", host), ("origin", origin.as_str()), ("content-type", "application/json")];
        let answer = dashboard.send(Method::POST, "/session", &headers, body.clone()).await;
        let Some(cookie) = cookie else {
            assert_eq!(answer.kind(), (403, "/problems/insecure-login"), "{host}");
            assert!(answer.problem["detail"].as_str().unwrap().contains("Use https"));
            assert_eq!(answer.cookie(), None);
            continue;
        };
        assert_eq!(answer.status, 204, "{host}");
        assert!(answer.cookie().unwrap().starts_with(&format!("{cookie}=nc_")), "{host}");
    }
}

#[tokio::test]
async fn https_counts_only_if_a_trusted_proxy_reports_it() {
    let upstream = Upstream::start();
    let key = Key::generate();
    upstream.set(1, &[(&key, None, None)]);
    let body = json!({ "key": key.expose() }).to_string();
    let headers = [
        ("x-forwarded-host", "counts.example"),
        ("x-forwarded-proto", "https"),
        ("origin", "https://counts.example"),
        ("content-type", "application/json"),
    ];
    let direct = upstream.dashboard();
    direct.log_in_until(&key, 204).await;
    let refused = direct.send(Method::POST, "/session", &headers, body.clone()).await;
    assert_eq!(refused.kind(), (403, "/problems/foreign-origin"));
    assert!(refused.problem["detail"].as_str().unwrap().contains("http.trusted_proxies"));

    let behind_proxy = Dashboard::start(|settings| {
        settings.upstream.addresses = vec![upstream.url.parse().unwrap()];
        settings.http.allowed_hosts = vec!["counts.example".parse().unwrap()];
        settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    behind_proxy.log_in_until(&key, 204).await;
    let answer = behind_proxy.send(Method::POST, "/session", &headers, body).await;
    let set = |value: &str, age: u32| {
        format!("__Host-newcycle={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict; Secure")
    };
    assert_eq!(answer.cookie(), Some(set(key.expose(), AGE).as_str()));
    let ended = behind_proxy.send(Method::DELETE, "/session", &headers, String::new()).await;
    assert_eq!(ended.cookie(), Some(set("", 0).as_str()));
    // The same without https at the proxy.
    let plain = [headers[0], ("origin", "http://counts.example"), headers[3]];
    let refused = behind_proxy.send(Method::POST, "/session", &plain, String::new()).await;
    assert_eq!(refused.kind(), (403, "/problems/insecure-login"));
}
