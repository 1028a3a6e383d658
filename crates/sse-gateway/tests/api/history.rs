//! History queries, which the gateway forwards to its upstreams.

use domain::Metric;
use serde_json::{Value, json};

use crate::support::{Gateway, Publisher, json as body};

/// A gateway whose first upstream is dead, and a second gateway that follows it.
fn gateways(publisher: &Publisher) -> [Gateway; 2] {
    let near = Gateway::start(&format!("http://127.0.0.1:9,{}", publisher.url));
    let far = Gateway::start(&near.internal_url);
    [near, far]
}

#[tokio::test]
async fn the_link_header_leads_through_all_pages() {
    let publisher = Publisher::start(1);
    for gateway in &gateways(&publisher) {
        let mut path = "/statistics/transfers/day?from=2026-11-03T00:00:00Z&limit=10".to_owned();
        let mut days = Vec::new();
        loop {
            let answer = gateway.get(&path, "*/*").await;
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["content-type"]),
                (200, &"application/json".parse().unwrap())
            );
            let link = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
            let url = answer.url().clone();
            let page = body(answer).await;
            assert_eq!((&page["topic"], &page["to"]), (&json!("transfers/day"), &Value::Null));
            days.extend(
                page["buckets"].as_array().unwrap().iter().map(|bucket| bucket["time"].clone()),
            );
            let Some(link) = link else {
                assert_eq!(page["next"], Value::Null);
                break;
            };
            let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
            assert!(next.contains(page["next"].as_str().unwrap()), "{link}");
            // Relative to the address of the page, so that it is right behind any proxy.
            assert!(next.starts_with('?'), "{link}");
            let url = url.join(next).unwrap();
            path = format!("{}?{}", url.path(), url.query().unwrap());
        }
        let expected: Vec<_> =
            (3..=25).map(|day| json!(format!("2026-11-{day:02}T00:00:00Z"))).collect();
        assert_eq!(days, expected);
    }
}

#[tokio::test]
async fn a_period_as_csv_excludes_its_end() {
    let publisher = Publisher::start(1);
    let [_near, far] = gateways(&publisher);
    let path = "/statistics/transfers/day?from=2026-11-05T01:00:00%2B01:00&to=2026-11-07T00:00:00Z";
    let answer = far.get(path, "text/csv").await;
    assert!(answer.headers().get("link").is_none());
    let text = answer.text().await.unwrap();
    assert_eq!(
        text,
        "topic,time,count\ntransfers/day,2026-11-05T00:00:00Z,3\ntransfers/day,2026-11-06T00:00:00Z,3\n"
    );
}

#[tokio::test]
async fn every_hop_answers_410_for_an_expired_period() {
    let publisher = Publisher::start(1);
    for gateway in &gateways(&publisher) {
        let answer =
            gateway.get("/statistics/transfers/second?from=2026-11-03T00:00:00Z", "*/*").await;
        assert_eq!(answer.status(), 410);
        let problem = body(answer).await;
        assert_eq!(problem["type"], "/problems/not-kept");
        assert_eq!(problem["kept_since"], "2026-11-10T00:00:00Z");
        assert!(problem["detail"].as_str().unwrap().contains("a longer unit"), "{problem}");
        let path = "/statistics/transfers/second?from=2026-11-10T00:00:00Z";
        assert_eq!(gateway.get(path, "*/*").await.status(), 200);
    }
}

/// A frozen upstream accepts connections but does not answer.
#[tokio::test]
async fn a_frozen_upstream_leaves_time_for_the_others() {
    let publisher = Publisher::start(1);
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addresses = format!("http://{},{}", silent.local_addr().unwrap(), publisher.url);
    let gateway = Gateway::start_with(&addresses, |settings| {
        settings.history.timeout = service_kit::settings::NonZeroDuration::from_millis(2_000);
    });
    let answer = gateway.get("/statistics/transfers/day?from=2026-11-03T00:00:00Z", "*/*").await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn history_is_503_without_an_upstream_but_the_live_window_works() {
    let publisher = Publisher::start(1);
    let [near, _far] = gateways(&publisher);
    near.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    let answer = near.get("/statistics/transfers/minute?from=2026-11-03T00:00:00Z", "*/*").await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers().contains_key("retry-after")),
        (503, true)
    );
    assert_eq!(near.get("/statistics/transfers/minute", "application/json").await.status(), 200);
}
