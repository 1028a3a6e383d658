//! What internal ports answer without their secret, and how the secret is replaced.

use access_kit::key::Key;
use local_stack::internal;
use local_stack::stack::{Replicas, ServiceKind};
use local_stack::test_database::{TEST_KEY, TestDatabase};
use reqwest::Method;

use crate::access::assert_limits_browsers;
use crate::ended_keys::events;
use crate::keys::{client, keys, new_key, until_admitted};
use crate::support::{settings, start_with, until};

/// Without the secret, an internal port says that the service lives and is ready, and nothing else.
/// The secret means nothing on a public port, and a key nothing on an internal one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_internal_port_needs_its_secret() {
    let database = TestDatabase::create().await;
    let wanted = Replicas { dashboard: 1, ..Replicas::ONE };
    let stack = start_with(settings(database.superuser(), wanted)).await;
    let wrong = internal::SECRET.replace("secret", "Secret");
    let bearer = |text: &str| format!("Bearer {text}");
    let strangers = [
        None,
        Some(bearer(TEST_KEY)),
        Some(bearer(&wrong)),
        Some(internal::SECRET.to_owned()),
        Some(bearer("")),
    ];
    let paths = [
        "/metrics",
        "/version",
        "/internal/v1/access",
        "/internal/v1/access/uses",
        "/internal/v1/stream",
        "/internal/v1/history/transfers/day?limit=1",
        "/none",
        "/",
        "/livez/x",
        "//readyz",
        "/READYZ",
    ];
    let client = client();
    for service in ServiceKind::ALL {
        let url = stack.internal_url(service);
        for authorization in &strangers {
            let send = async |method: Method, path: &str| {
                let mut request = client.request(method, format!("{url}{path}"));
                if let Some(value) = authorization {
                    request = request.header("authorization", value);
                }
                request.body("[1]").header("content-type", "application/json").send().await.unwrap()
            };
            for path in paths {
                for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
                    let answer = send(method.clone(), path).await;
                    let what = format!("{method} {url}{path} {authorization:?}");
                    assert_eq!(answer.status(), 401, "{what}");
                    assert!(answer.headers().contains_key("www-authenticate"), "{what}");
                    assert_limits_browsers(&answer, &what);
                }
            }
            for (path, bare) in [("/livez", "live\n"), ("/readyz", "{\"ready\":true}")] {
                let answer = send(Method::GET, path).await;
                assert_eq!(
                    (answer.status().as_u16(), answer.text().await.unwrap()),
                    (200, bare.to_owned())
                );
            }
        }
        let text = internal::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        assert!(text.contains("http_server_requests_total"), "{text}");
        let ready = internal::get(format!("{url}/readyz")).await.unwrap().text().await.unwrap();
        assert!(ready.contains("\"reasons\":[]"), "{ready}");
        if service != ServiceKind::StatsNotifier {
            let public = client.get(format!("{}/access", stack.url(service)));
            let public = public.bearer_auth(internal::SECRET).send().await.unwrap();
            let expected = if service == ServiceKind::Dashboard { 404 } else { 401 };
            assert_eq!(public.status(), expected, "{service}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_internal_secret_is_replaced_while_everything_runs() {
    let database = TestDatabase::create().await;
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = [internal::SECRET.to_owned(), internal::SECRET.replace("this", "that")];
    let files = [ServiceKind::StatsNotifier, ServiceKind::SseGateway]
        .map(|service| (service, folder.path().join(service.name())));
    let write = |text: &str| {
        for (_, file) in &files {
            std::fs::write(file.with_extension("next"), text).unwrap();
            std::fs::rename(file.with_extension("next"), file).unwrap();
        }
    };
    write(&old);
    let wanted = Replicas { stats_notifier: 1, sse_gateway: 1, ..Replicas::NONE };
    let mut settings = settings(database.superuser(), wanted);
    for (service, file) in &files {
        let file = file.to_str().unwrap();
        settings.set(&[(*service, "NEWCYCLE__INTERNAL__SECRET_FILE", file)]);
    }
    let stack = start_with(settings).await;
    let key: Key = TEST_KEY.parse().unwrap();
    let stream = events(&stack, &key).await;
    let accepts = async |service, secret: &str| {
        let request = client().get(format!("{}/version", stack.internal_url(service)));
        request.bearer_auth(secret).send().await.unwrap().status() == 200
    };
    for (text, old_is_valid, new_is_valid) in [
        (format!("{old}\n{new}\n"), true, true),
        (format!("{new}\n{old}\n"), true, true),
        (format!("{new}\n"), false, true),
    ] {
        write(&text);
        for (service, _) in &files {
            until("the file must be read", async || {
                let found = (accepts(*service, &old).await, accepts(*service, &new).await);
                (found == (old_is_valid, new_is_valid)).then_some(())
            })
            .await;
        }
    }
    // Something else in the file changes nothing, and a key that is made now reaches the gateway.
    write("");
    let later = new_key(&keys(&database).await, "later", &["statistics:read"]).await;
    until_admitted(&stack, ServiceKind::SseGateway, &later).await;
    assert!(accepts(ServiceKind::SseGateway, &new).await);
    assert!(!stream.is_finished());
    stream.abort();
}
