//! Clients that request large answers and do not read them.

use domain::Metric;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::process::GatewayProcess;
use crate::support::{Client, DEADLINE, Publisher, all_topics, json};

/// The largest page: about 470 kB.
const PAGE: &str = "/statistics/transfers/millisecond?from=2026-11-03T00:00:00Z&limit=10000";

/// Room for three pages.
const BUDGET: &str = "1700000";

const METRIC: &str = "http_server_unsent_bytes";

async fn until_the_budget_is_free(gateway: &GatewayProcess) {
    let free = async { while gateway.metric(METRIC).await > 0.0 {} };
    tokio::time::timeout(DEADLINE, free).await.expect("the budget must become free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_that_are_not_read_share_one_budget() {
    let publisher = Publisher::start(1);
    let gateway =
        GatewayProcess::start(&publisher.url, &[("NEWCYCLE__HTTP__MAX_UNSENT_BYTES", BUDGET)])
            .await;
    let mut follower = Client::connect(&gateway.url(&all_topics()), None).await;
    follower.until_status().await;

    let mut unread = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..30 {
        let (client, status) = gateway.stall(PAGE, "").await;
        unread.push(client);
        statuses.push(status);
        assert!(gateway.metric(METRIC).await <= BUDGET.parse().unwrap());
    }
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(503)), (3, 27), "{statuses:?}");
    assert!(gateway.metric(METRIC).await > 1_000_000.0);

    let refused = reqwest::get(gateway.url(PAGE)).await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()),
        (503, &b"2"[..])
    );
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(json(refused).await["type"], "/problems/unavailable");

    // Streams and small answers go on.
    follower.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    let small = reqwest::get(gateway.url("/statistics/transfers/day?from=2026-11-03T00:00:00Z"));
    assert_eq!(small.await.unwrap().status(), 200);

    drop(unread);
    until_the_budget_is_free(&gateway).await;
    let page = reqwest::get(gateway.url(PAGE)).await.unwrap();
    assert_eq!(page.status(), 200);
    let page: Value = json(page).await;
    assert_eq!(page["buckets"].as_array().unwrap().len(), 10_000);
}

/// It never stops reading, so no timeout of the connection applies to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_a_large_answer_too_slowly_is_cut_off() {
    let publisher = Publisher::start(1);
    let gateway =
        GatewayProcess::start(&publisher.url, &[("NEWCYCLE__HTTP__ANSWER_TIMEOUT", "1s")]).await;
    let (mut slow, status) = gateway.stall(PAGE, "").await;
    assert_eq!(status, 200);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let read = async {
        let mut between_bytes = tokio::time::interval(std::time::Duration::from_millis(20));
        while stopped.is_empty() {
            between_bytes.tick().await;
            // After the connection was closed, the rest of what was sent can still be read.
            let _closed = slow.read_u8().await;
        }
    };
    let freed = async {
        until_the_budget_is_free(&gateway).await;
        stop.send(()).unwrap();
    };
    tokio::join!(read, freed);
}
