//! What the gateway sends to its upstreams, and what it says about them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use actix_web::http::header::{AUTHORIZATION, LOCATION};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

use crate::process::GatewayProcess;
use crate::support::{DEADLINE, Publisher};

/// A server that redirects every request, and keeps those that it got.
struct Redirecting {
    address: String,
    /// The path of each request, with its authorization.
    requests: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

impl Redirecting {
    fn start(to: &str) -> Self {
        let requests = Arc::new(Mutex::new(BTreeMap::new()));
        let (kept, to) = (Arc::clone(&requests), to.to_owned());
        let server = HttpServer::new(move || {
            let (kept, to) = (Arc::clone(&kept), to.clone());
            App::new().default_service(web::to(move |request: HttpRequest| {
                let authorization = request.headers().get(AUTHORIZATION);
                let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
                kept.lock().unwrap().insert(request.uri().to_string(), authorization);
                let location = format!("{to}{}", request.uri());
                async {
                    HttpResponse::TemporaryRedirect().insert_header((LOCATION, location)).finish()
                }
            }))
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
        let address = server.addrs()[0].to_string();
        tokio::spawn(server.run());
        Self { address, requests }
    }

    fn requests(&self) -> BTreeMap<String, Option<String>> {
        self.requests.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_is_followed_without_a_proxy_and_without_redirects() {
    let publisher = Publisher::start(1);
    let elsewhere = Redirecting::start("http://127.0.0.1:9");
    let redirecting = Redirecting::start(&format!("http://{}", elsewhere.address));
    let proxy = Redirecting::start("http://127.0.0.1:9");
    let proxy_url = format!("http://{}", proxy.address);
    let names =
        ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let variables = names.map(|name| (name, proxy_url.as_str()));
    // The user and password are for the upstream, and for nothing else.
    let addresses = format!("http://user:hunter2@{},{}", redirecting.address, publisher.url);
    let gateway = GatewayProcess::start(&addresses, &variables).await;
    let history = "/statistics/transfers/day?from=2026-11-03T00:00:00Z";
    assert_eq!(reqwest::get(gateway.url(history)).await.unwrap().status(), 200);

    let asked = redirecting.requests();
    assert!(asked.contains_key("/internal/v1/stream"), "{asked:?}");
    assert!(asked.keys().any(|path| path.starts_with("/internal/v1/history/")), "{asked:?}");
    let basic = Some("Basic dXNlcjpodW50ZXIy".to_owned());
    assert!(asked.values().all(|authorization| *authorization == basic), "{asked:?}");
    assert_eq!(elsewhere.requests(), BTreeMap::new(), "a redirect must not be followed");
    assert_eq!(proxy.requests(), BTreeMap::new(), "no proxy must be used");

    let shown = format!("http://<redacted>@{}", redirecting.address);
    let logged = async {
        while ["lost the upstream", "no history from this upstream"].iter().any(|text| {
            !gateway.log().lines().any(|line| line.contains(text) && line.contains(&shown))
        }) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, logged).await.expect("the upstream must be named in the log");
    assert!(!gateway.log().contains("hunter2"), "{}", gateway.log());
}

/// The reason is what the network reported, without the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_why_an_upstream_cannot_be_reached() {
    let publisher = Publisher::start(1);
    let addresses = format!("http://user:hunter2@127.0.0.1:1,{}", publisher.url);
    let gateway = GatewayProcess::start(&addresses, &[]).await;
    let history = "/statistics/transfers/day?from=2026-11-03T00:00:00Z";
    assert_eq!(reqwest::get(gateway.url(history)).await.unwrap().status(), 200);
    let logged = async {
        while ["lost the upstream", "no history from this upstream"].iter().any(|text| {
            !gateway.log().lines().any(|line| line.contains(text) && line.contains("refused"))
        }) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, logged).await.expect("the log must have the reason");
    assert!(!gateway.log().contains("hunter2"), "{}", gateway.log());
}

/// Runs the program until it ends, and returns its exit code and all of its output.
fn run(argument: &str, addresses: &str) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sse-gateway"));
    command.arg(argument).env("NEWCYCLE__UPSTREAM__ADDRESSES", addresses);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_credentials_of_an_upstream_are_not_shown() {
    let good = "http://user:hunter2@a:1,http://b:2";
    let (code, printed) = run("print-settings", good);
    assert_eq!(code, Some(0), "{printed}");
    let line = "upstream.addresses = \"http://<redacted>@a:1,http://b:2\"";
    assert!(printed.contains(line), "{printed}");
    for bad in [
        "http://b:2,user:hunter2@a:1",
        "http://b:2,http://user:hun/ter2@a",
        "http://b,https://user:hunter2@a",
        "http://b,http://user:hun://ter2@a",
    ] {
        let (code, refused) = run("serve", bad);
        assert_eq!(code, Some(1), "{refused}");
        let expected =
            "sets upstream.addresses to a value that cannot be used: address 2 is not a URL";
        assert!(refused.contains(expected), "{refused}");
        let (_, printed) = run("print-settings", bad);
        for text in [refused, printed] {
            assert!(!text.contains("hun") && !text.contains("ter2"), "{text}");
        }
    }
}
