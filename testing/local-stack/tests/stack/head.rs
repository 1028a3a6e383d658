//! The response to HEAD equals that to GET without the body, on every port.

use std::time::Duration;

use local_stack::internal;
use local_stack::stack::{Replicas, ServiceKind, Stack};
use local_stack::test_database::{TestDatabase, http_client};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};

use crate::support::{DEADLINE, settings, start_with};

/// URLs whose responses do not change between two requests.
fn urls(stack: &Stack) -> Vec<(String, &'static str)> {
    let [ingest, gateway, dashboard] =
        [ServiceKind::IngestApi, ServiceKind::SseGateway, ServiceKind::Dashboard]
            .map(|service| stack.url(service));
    let internal =
        ServiceKind::ALL.map(|service| (format!("{}/version", stack.internal_url(service)), "*/*"));
    let public = [
        (format!("{ingest}/users"), "*/*"),
        (format!("{ingest}/users/none"), "*/*"),
        (format!("{ingest}/openapi.json"), "*/*"),
        (format!("{ingest}/none"), "*/*"),
        (format!("{gateway}/statistics/transfers/day"), "application/json"),
        (format!("{gateway}/statistics/transfers/day"), "text/csv"),
        (format!("{gateway}/openapi.json"), "*/*"),
        (format!("{dashboard}/"), "*/*"),
        (format!("{dashboard}/config.json"), "*/*"),
    ];
    public.into_iter().chain(internal).collect()
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let database = TestDatabase::create().await;
    let wanted = Replicas { dashboard: 1, ..Replicas::ONE };
    let stack = start_with(settings(database.superuser(), wanted)).await;
    let client = http_client().timeout(DEADLINE).build().unwrap();
    let inside = internal::http_client().timeout(DEADLINE).build().unwrap();
    for (url, accept) in urls(&stack) {
        let ask = async |method: Method| {
            let client = if url.ends_with("/version") { &inside } else { &client };
            let answer = client.request(method, &url).header(ACCEPT, accept).send().await.unwrap();
            let header = |name| answer.headers().get(name).cloned();
            let facts = (answer.status(), header(CONTENT_TYPE), header(CONTENT_LENGTH));
            (facts, answer.bytes().await.unwrap())
        };
        let ((get, content), (head, nothing)) = (ask(Method::GET).await, ask(Method::HEAD).await);
        assert_eq!(get, head, "{url}");
        assert!(!content.is_empty() && nothing.is_empty(), "{url}: {content:?}, {nothing:?}");
    }
    // A stream has no length. For HEAD it ends at once, and no longer counts as a subscriber.
    let url = format!("{}/statistics/transfers/day", stack.url(ServiceKind::SseGateway));
    let answer = client.head(&url).timeout(Duration::from_secs(10)).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[CONTENT_TYPE]),
        (200, &"text/event-stream".parse().unwrap())
    );
    assert!(answer.bytes().await.unwrap().is_empty());
    let url = format!("{}/metrics", stack.internal_url(ServiceKind::SseGateway));
    let metrics = internal::get(url).await.unwrap();
    assert!(metrics.text().await.unwrap().contains("gateway_stream_subscribers 0\n"));
}
