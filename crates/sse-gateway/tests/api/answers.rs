//! Single responses, and refusals.

use domain::Metric;

use crate::support::{Client, Gateway, Publisher};

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

#[tokio::test]
async fn a_refusal_names_what_is_wrong() {
    let (_publisher, gateway) = gateway().await;
    let refusals = [
        ("/statistics/transfers/decade", "*/*", 404, Some("unit"), "decade"),
        ("/statistics/thefts/minute", "*/*", 404, None, "/statistics/thefts/minute"),
        ("/statistics", "*/*", 400, Some("topic"), "at least one"),
        ("/statistics?topic=transfers", "*/*", 400, Some("topic"), "transfers"),
        ("/statistics?topic=thefts/day", "*/*", 400, Some("topic"), "thefts"),
        ("/statistics?topic=transfers/day&topic=transfers/day", "*/*", 400, Some("topic"), "twice"),
        ("/statistics/transfers/day?last=0", "*/*", 400, Some("last"), "last"),
        ("/statistics/transfers/day?last=3601", "*/*", 400, Some("last"), "1 to 3600"),
        (
            "/statistics/transfers/day?last=99999999999999999999",
            "*/*",
            400,
            Some("last"),
            "1 to 3600",
        ),
        ("/statistics/transfers/day?last=1&last=2", "*/*", 400, Some("last"), "more than once"),
        ("/statistics/transfers/day?last=many", "*/*", 400, Some("last"), "many"),
        ("/statistics/transfers/day?payload=half", "*/*", 400, Some("payload"), "half"),
        ("/statistics/transfers/day?heartbeat=0", "*/*", 400, Some("heartbeat"), "1 to 15"),
        ("/statistics?topic=transfers/day&heartbeat=16", "*/*", 400, Some("heartbeat"), "1 to 15"),
        ("/statistics/transfers/day?speed=9", "*/*", 400, Some("speed"), "speed"),
        ("/statistics?topic=transfers/day&payload=full", "*/*", 400, Some("payload"), "payload"),
        (
            "/statistics?topic=transfers/day&from=2026-11-01T00:00:00Z",
            "*/*",
            400,
            Some("from"),
            "from",
        ),
        ("/statistics/transfers/day?limit=5", "*/*", 400, None, "needs from or to"),
        (
            "/statistics/transfers/day?from=2026-11-01T00:00:00Z&heartbeat=2",
            "*/*",
            400,
            None,
            "live window",
        ),
        (
            "/statistics/transfers/day?from=2026-11-01T00:00:00Z&last=5",
            "*/*",
            400,
            None,
            "live window",
        ),
        ("/statistics/transfers/day?from=yesterday", "*/*", 400, Some("from"), "RFC 3339"),
        ("/statistics/transfers/day?to=10000-01-01T00:00:00Z", "*/*", 400, Some("to"), "RFC 3339"),
        (
            "/statistics/transfers/day?to=2026-11-01T00:00:00Z&limit=0",
            "*/*",
            400,
            Some("limit"),
            "from 1",
        ),
        (
            "/statistics/transfers/day?to=2026-11-01T00:00:00Z&limit=10001",
            "*/*",
            400,
            Some("limit"),
            "10000",
        ),
        (
            "/statistics/transfers/day?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z",
            "*/*",
            400,
            Some("from"),
            "later",
        ),
        (
            "/statistics/transfers/day?to=2026-11-01T00:00:00Z",
            "text/event-stream",
            406,
            None,
            "text/csv",
        ),
        ("/statistics/transfers/day", "image/png", 406, None, "image/png"),
        ("/statistics/transfers/day", "application/json;q=0", 406, None, "q=0"),
    ];
    for (path, accept, status, field, word) in refusals {
        let response = gateway.get(path, accept).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let problem: serde_json::Value =
            serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem.get("field").and_then(serde_json::Value::as_str), field, "{problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(word),
            "{problem} must contain {word}"
        );
    }
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
    let url = format!("{}/statistics/transfers/minute?payload=full", gateway.url);
    let mut client = Client::connect(&url, None).await;
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
