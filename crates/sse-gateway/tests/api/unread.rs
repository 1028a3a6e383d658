//! Clients that request large answers and do not read them.

use std::time::Duration;

use domain::{BucketTime, Changes, Metric, Version};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::process::GatewayProcess;
use crate::stalled::memory;
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
    // So do large files that the program has in any case.
    for path in ["/openapi.json", "/docs/swagger-ui-bundle.js"] {
        let request = reqwest::Client::new().get(gateway.url(path));
        let request = request.header("accept-encoding", "gzip");
        let file = request.send().await.unwrap();
        assert_eq!(file.status(), 200, "{path}");
        assert!(file.bytes().await.unwrap().len() > 16_384, "{path}");
    }

    drop(unread);
    until_the_budget_is_free(&gateway).await;
    let page = reqwest::get(gateway.url(PAGE)).await.unwrap();
    assert_eq!(page.status(), 200);
    let page: Value = json(page).await;
    assert_eq!(page["buckets"].as_array().unwrap().len(), 10_000);
}

/// All windows together are about 450 kB then.
fn fill_the_windows(publisher: &Publisher) -> Version {
    let seconds = (1_700_000_000..1_700_003_600).map(|second| second * 1_000);
    let times = seconds.map(|time| BucketTime::from_unix_milliseconds(time).unwrap());
    let counts =
        times.flat_map(|time| [(Metric::Transfers, time, 1), (Metric::ItemCreation, time, 1)]);
    publisher.hub.advance(&Changes::from_iter(counts)).unwrap()
}

/// The windows of all topics, a little less than whole. No two of these share an event.
fn distinct(number: usize) -> String {
    format!("{}&last={}", all_topics(), 3_500 + number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_that_are_not_read_share_the_same_budget() {
    let publisher = Publisher::start(1);
    let variables =
        [("NEWCYCLE__HTTP__MAX_UNSENT_BYTES", BUDGET), ("NEWCYCLE__HTTP__ANSWER_TIMEOUT", "300ms")];
    let gateway = GatewayProcess::start(&publisher.url, &variables).await;
    let process_id = gateway.process.process_id().unwrap();
    let mut follower = Client::connect(&gateway.url(&all_topics()), None).await;
    follower.until(fill_the_windows(&publisher)).await;

    let before = memory(process_id, "VmHWM:");
    let mut unread = Vec::new();
    for client in 0..50 {
        let (stream, status) = gateway.stall(&distinct(client), "").await;
        assert_eq!(status, 200);
        unread.push(stream);
    }
    // Those that have no room wait for it. Those that have it and do not read are cut off.
    let mut most = 0.0_f64;
    let cut_off = async {
        while gateway.metric("gateway_stream_subscribers").await > 1.0 {
            most = most.max(gateway.metric(METRIC).await);
            // Patches of a moderate size go on meanwhile.
            follower.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
        }
    };
    tokio::time::timeout(DEADLINE, cut_off).await.expect("all other streams must be cut off");
    assert!((1_000_000.0..=BUDGET.parse().unwrap()).contains(&most), "{most} bytes reserved");
    let grown = memory(process_id, "VmHWM:") - before;
    assert!(grown < 12_000_000, "{grown} bytes for 50 clients that do not read");

    until_the_budget_is_free(&gateway).await;
    let mut reader = Client::connect(&gateway.url(&all_topics()), None).await;
    reader.until_status().await;
    assert!(reader.state.is_some());
    drop(unread);
}

/// The budget has room for one event. The slow clients may keep theirs for longer than this test
/// waits, unless others wait for room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_stream_does_not_wait_long_for_slow_ones() {
    let publisher = Publisher::start(1);
    let variables = [
        ("NEWCYCLE__HTTP__MAX_UNSENT_BYTES", "600000"),
        ("NEWCYCLE__HTTP__ANSWER_TIMEOUT", "100s"),
        ("NEWCYCLE__HTTP__UNREAD_TIMEOUT", "10m"),
    ];
    let gateway = GatewayProcess::start(&publisher.url, &variables).await;
    let mut follower = Client::connect(&gateway.url(&all_topics()), None).await;
    let version = fill_the_windows(&publisher);
    follower.until(version).await;
    let _slow = [gateway.stall(&distinct(0), "").await, gateway.stall(&distinct(1), "").await];
    let newcomer = async {
        while gateway.metric(METRIC).await < 400_000.0 {}
        let mut newcomer = Client::connect(&gateway.url(&distinct(2)), None).await;
        newcomer.until(version).await;
    };
    tokio::time::timeout(DEADLINE, newcomer).await.expect("the newcomer must get its windows");
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
        let mut between_bytes = tokio::time::interval(Duration::from_millis(20));
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
