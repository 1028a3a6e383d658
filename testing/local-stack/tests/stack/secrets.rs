//! No secret is in a log, an answer, a metric, an argument or the environment of a program that
//! does not need it, with the most verbose logs and through every way in which a secret is used.

use std::process::Command;
use std::sync::Arc;

use access_kit::key::Key;
use local_stack::internal;
use local_stack::stack::{Replicas, ServiceKind, Stack};
use local_stack::test_database::{TEST_KEY, TestDatabase, client, http_client, service_programs};
use parking_lot::Mutex;
use postgres_kit::database::DatabaseSettings;
use secrecy::ExposeSecret;

use crate::support::{DEADLINE, settings, until};

/// The password in the address of an upstream.
const UPSTREAM_PASSWORD: &str = "the-password-of-a-proxy-before-the-upstream";

/// A secret, and the service whose environment may have it.
struct Secret {
    name: &'static str,
    text: String,
    owner: Option<ServiceKind>,
}

fn secrets(key: &Key) -> Vec<Secret> {
    let roles = TestDatabase::roles();
    let secret = |name, text: &str, owner| Secret { name, text: text.to_owned(), owner };
    // The part of a key after its id: the id may be shown.
    let of_key = |text: &str| text[16..].to_owned();
    vec![
        secret("ingest", roles.ingest_password.expose_secret(), Some(ServiceKind::IngestApi)),
        secret(
            "notifier",
            roles.notifier_password.expose_secret(),
            Some(ServiceKind::StatsNotifier),
        ),
        secret("access", roles.access_password.expose_secret(), None),
        secret("internal", internal::SECRET, None),
        secret("upstream", UPSTREAM_PASSWORD, Some(ServiceKind::SseGateway)),
        secret("key of the tests", &of_key(TEST_KEY), None),
        secret("new key", &of_key(key.expose()), None),
    ]
}

/// Runs the program `access`, and returns what it prints, in both ways.
fn access(database: &DatabaseSettings, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(service_programs().join("access"));
    command
        .args(arguments)
        .env("NEWCYCLE__DATABASE__HOST", database.host.to_string())
        .env("NEWCYCLE__DATABASE__PORT", database.port.to_string())
        .env("NEWCYCLE__DATABASE__NAME", &database.name)
        .env("NEWCYCLE__DATABASE__PASSWORD", database.password.expose_secret())
        .env("NEWCYCLE__LOG__FILTER", "trace");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let [shown, logged] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (shown, logged)
}

/// The whole answer as text.
async fn text(request: reqwest::RequestBuilder) -> String {
    let answer = request.send().await.unwrap();
    let head = format!("{} {:?}", answer.status(), answer.headers());
    format!("{head}\n{}", answer.text().await.unwrap())
}

/// Uses every secret in every way.
async fn answers(stack: &Stack, key: &Key) -> Vec<String> {
    let [ingest, gateway, page] =
        [ServiceKind::IngestApi, ServiceKind::SseGateway, ServiceKind::Dashboard]
            .map(|service| stack.url(service));
    let (admin, bare) = (http_client().timeout(DEADLINE).build().unwrap(), reqwest::Client::new());
    let json = "application/json";
    let mut answers = Vec::new();
    for (method, url) in [
        ("GET", format!("{ingest}/access")),
        ("POST", format!("{ingest}/users")),
        ("DELETE", format!("{ingest}/users/x")),
        ("GET", format!("{ingest}/openapi.json")),
        ("GET", format!("{ingest}/none")),
        ("GET", format!("{gateway}/access")),
        ("GET", format!("{gateway}/statistics/transfers/day")),
        ("GET", format!("{gateway}/statistics/transfers/day?from=2026-01-01T00:00:00Z")),
        ("GET", format!("{gateway}/statistics/transfers/day?access_token={}", key.expose())),
        ("GET", format!("{gateway}/{}", key.expose())),
        ("GET", format!("{page}/config.json")),
    ] {
        let method: reqwest::Method = method.parse().unwrap();
        let request = admin.request(method.clone(), &url).header("accept", json);
        answers.push(text(request.header("content-type", json).body("{}")).await);
        for wrong in [key.expose().replace("nc_", "nc-"), format!("{}x", key.expose())] {
            let request = bare.request(method.clone(), &url).bearer_auth(&wrong);
            answers.push(text(request.header("accept", json)).await);
        }
        let request = bare.request(method.clone(), &url).basic_auth("key", Some(key.expose()));
        answers.push(text(request.header("accept", json)).await);
    }
    for service in ServiceKind::ALL {
        for path in ["/metrics", "/readyz", "/version", "/none", "/internal/v1/access"] {
            let url = format!("{}{path}", stack.internal_url(service));
            answers.push(text(internal::client().get(&url)).await);
            answers.push(text(client().get(&url)).await);
        }
    }
    // The answer to a login has the key in its cookie, and nowhere else.
    let login = format!("{{\"key\":\"{}\"}}", key.expose());
    let login = bare.post(format!("{page}/session")).header("content-type", json).body(login);
    let answer = login.header("origin", &page).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    let mut headers = answer.headers().clone();
    let cookie = headers.remove("set-cookie").unwrap();
    assert!(cookie.to_str().unwrap().contains("HttpOnly"), "{cookie:?}");
    answers.push(format!("{headers:?} {}", answer.text().await.unwrap()));
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_only_where_it_is_needed() {
    let database = TestDatabase::create().await;
    let create = ["create", "--name", "sentinel", "--scope", "ingest:write,statistics:read"];
    let (shown, logged) = access(&database.access(), &create);
    let key: Key = shown.trim().parse().unwrap();
    let wanted = Replicas { sse_gateway: 2, dashboard: 1, ..Replicas::ONE };
    let mut settings = settings(database.superuser(), wanted);
    for service in ServiceKind::ALL {
        settings.set(&[(service, "NEWCYCLE__LOG__FILTER", "trace")]);
    }
    // The second gateway never becomes ready: it does not send the internal secret to an address
    // with a password of its own.
    let away = ServiceKind::SseGateway.replica(2);
    let address = format!(
        "http://someone:{UPSTREAM_PASSWORD}@127.0.0.1:{}",
        settings.ports[0].stats_notifier
    );
    settings.variables.push((away, "NEWCYCLE__UPSTREAM__ADDRESSES", address));
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let keep =
        Arc::new(move |instance, line: &str| lines.lock().push(format!("{instance}: {line}")));
    let mut stack = Stack::start(settings, keep).unwrap();
    for instance in stack.instances().filter(|instance| *instance != away) {
        stack.until_ready(instance, DEADLINE).await.unwrap();
    }
    for service in [ServiceKind::IngestApi, ServiceKind::SseGateway] {
        let url = format!("{}/access", stack.url(service));
        until("the key must be known", async || {
            let request = reqwest::Client::new().get(&url).bearer_auth(key.expose());
            (request.send().await.unwrap().status() == 200).then_some(())
        })
        .await;
    }
    let answers = answers(&stack, &key).await;
    let refused = format!("{away}: ");
    until("the second gateway must have tried its upstream", async || {
        let log = log.lock();
        log.iter().any(|line| line.starts_with(&refused) && line.contains("401")).then_some(())
    })
    .await;
    let listed = access(&database.access(), &["list"]);
    let (_, revoked) = access(&database.access(), &["revoke", "sentinel"]);
    let secrets = secrets(&key);
    let read = |process_id: u32, file: &str| {
        std::fs::read(format!("/proc/{process_id}/{file}"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap()
    };
    for (instance, process_id) in stack.process_ids() {
        let (arguments, environment) = (read(process_id, "cmdline"), read(process_id, "environ"));
        for Secret { name, text, owner } in &secrets {
            assert!(!arguments.contains(text), "{name} is in the arguments of {instance}");
            if *owner != Some(instance.service) {
                assert!(!environment.contains(text), "{name} is in the environment of {instance}");
            }
        }
    }
    assert!(stack.stop(DEADLINE).await.is_empty());
    let log = log.lock();
    let verbose = log.iter().filter(|line| line.contains("TRACE"));
    assert!(verbose.count() > 100, "the libraries must log what they do");
    for Secret { name, text, .. } in &secrets {
        let places = log.iter().chain(&answers).chain([&logged, &listed.0, &listed.1, &revoked]);
        let found: Vec<_> = places.filter(|place| place.contains(text)).collect();
        assert!(found.is_empty(), "{name} is in {found:#?}");
    }
}
