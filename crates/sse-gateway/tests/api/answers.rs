//! Single responses, and refusals.

use domain::Metric;
use serde_json::Value;

use crate::support::{Gateway, Publisher, json};

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
    let changed = client.next().await;
    assert_eq!(&*changed.data, newest_first.replace("\"count\":1", "\"count\":2").as_str());
}
