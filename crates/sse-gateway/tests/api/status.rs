//! The status: clients always know whether the counts are live.

use std::time::Duration;

use domain::{BucketTime, Metric, Version};
use futures_util::StreamExt;
use local_stack::internal;
use serde_json::json;
use service_kit::settings::NonZeroDuration;
use sse_gateway::settings::Settings;
use statistics_stream::{Status, UpstreamStatus, upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Client, DEADLINE, Gateway, Publisher, content, event_id, until};

#[tokio::test]
async fn before_there_are_counts_the_status_is_stale() {
    let gateway = Gateway::start("http://127.0.0.1:9");
    let mut client = gateway.follow("/statistics/transfers/day").await;
    let status = client.next().await;
    assert_eq!(status.event.as_deref(), Some("status"));
    assert!(status.data.contains(r#""upstream":"stale""#), "{}", status.data);
    let once = gateway.get("/statistics/transfers/day", "application/json").await;
    assert_eq!((once.status().as_u16(), once.headers().contains_key("retry-after")), (503, true));
    let internal =
        async |path: &str| internal::get(format!("{}{path}", gateway.internal_url)).await.unwrap();
    assert_eq!(internal("/readyz").await.status(), 503);
    assert_eq!(internal("/livez").await.status(), 200);
}

/// The publisher sends no more heartbeats, but its connection stays open. The status travels down a
/// tree of gateways.
#[tokio::test]
async fn a_silent_upstream_is_stale_and_recovers_without_a_snapshot() {
    let publisher = Publisher::start(1);
    let quick = |settings: &mut Settings| {
        settings.upstream.read_timeout = NonZeroDuration::from_millis(500);
        settings.stream.internal_heartbeat = NonZeroDuration::from_millis(100);
    };
    let near = Gateway::start_with(&publisher.url, quick);
    let far = Gateway::start_with(&near.internal_url, quick);
    far.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    let mut client = far.follow("/statistics?topic=transfers/day").await;
    client.until_status().await;
    let before = content(client.state.as_ref().unwrap());
    let until_status = async |client: &mut Client, upstream: &str| loop {
        let message = client.next().await;
        assert_eq!(message.event.as_deref(), Some("status"), "the counts must stay the same");
        if message.data.contains(&format!(r#""upstream":"{upstream}""#)) {
            return;
        }
    };
    until_status(&mut client, "stale").await;
    publisher.hub.mark_live();
    until_status(&mut client, "live").await;
    assert_eq!(content(client.state.as_ref().unwrap()), before);
}

/// An upstream notices late that its database is lost. Until then, it sent signs of life.
#[tokio::test]
async fn a_gateway_is_stale_for_as_long_as_its_upstream() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Stale for an hour, by a clock that is wrong.
    let [since, now] = ["1970-01-01T00:00:00.000Z", "1970-01-01T01:00:00.000Z"];
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned();
    let text = ["live", "stale"].into_iter().fold(head, |text, upstream| {
        let status = json!({"upstream": upstream, "since": since, "now": now});
        format!("{text}event: status\ndata: {status}\n\n")
    });
    let reports = async {
        let mut streams = Vec::new();
        loop {
            let (mut gateway, _) = listener.accept().await.unwrap();
            let request = gateway.read(&mut [0; 4_096]).await.unwrap();
            assert_ne!(request, 0, "the gateway must send a request");
            gateway.write_all(text.as_bytes()).await.unwrap();
            streams.push(gateway);
        }
    };
    let gateway = Gateway::start(&url);
    let hour_of_staleness = async {
        let mut client = gateway.follow("/statistics?topic=transfers/day&heartbeat=1").await;
        loop {
            let status: Status = serde_json::from_str(&client.next().await.data).unwrap();
            let [now, since] = [&status.now, &status.since]
                .map(|time| time.parse::<BucketTime>().unwrap().unix_milliseconds());
            if status.upstream == UpstreamStatus::Stale && now - since >= 3_600_000 {
                return;
            }
        }
    };
    tokio::select! {
        stale = tokio::time::timeout(DEADLINE, hour_of_staleness) => {
            stale.expect("the gateway must be stale for an hour");
        }
        () = reports => {}
    }
}

/// Each hop adds the time that it has had the counts, also if nothing is counted.
#[tokio::test]
async fn the_age_of_the_counts_adds_up_over_gateways() {
    let publisher = Publisher::start(1);
    let near = Gateway::start(&publisher.url);
    let far = Gateway::start(&near.internal_url);
    far.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    let mut client = far.follow("/statistics?topic=transfers/day&heartbeat=1").await;
    client.until_status().await;
    for age in [100_000, 300_000, 200_000] {
        let deadline = u64::try_from(DEADLINE.as_millis()).unwrap();
        let confirm = async {
            loop {
                publisher.hub.mark_live_for(Duration::from_millis(age));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let until_shown = async {
            loop {
                let status: Status = serde_json::from_str(&client.next().await.data).unwrap();
                let shown = status.age_ms.unwrap();
                if status.upstream == UpstreamStatus::Live && (age..age + deadline).contains(&shown)
                {
                    return;
                }
            }
        };
        tokio::select! {
            shown = tokio::time::timeout(DEADLINE, until_shown) => {
                shown.expect("the age must reach the client");
            }
            () = confirm => {}
        }
    }
}

/// The operating system accepts connections for a frozen upstream.
#[tokio::test]
async fn an_upstream_that_does_not_answer_is_skipped() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let publisher = Publisher::start(1);
    let addresses = format!("http://{},{}", silent.local_addr().unwrap(), publisher.url);
    let gateway = Gateway::start_with(&addresses, |settings| {
        settings.upstream.connect_timeout = NonZeroDuration::from_millis(200);
        settings.upstream.read_timeout = NonZeroDuration::from_millis(60_000);
    });
    gateway.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
}

/// A publisher whose database hangs still accepts subscribers. They must not get the status live.
#[tokio::test]
async fn a_publisher_that_hangs_is_stale() {
    let publisher = Publisher::start(1);
    publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z");
    let url = format!("{}/internal/v1/stream", publisher.url);
    until("the publisher must be stale", || publisher.hub.upstream() == UpstreamStatus::Stale)
        .await;
    let mut client = Client::connect(&url, None).await;
    assert_eq!(client.next().await.event.as_deref(), Some("snapshot"));
    let status = client.next().await;
    assert_eq!(status.event.as_deref(), Some("status"));
    assert!(status.data.contains(r#""upstream":"stale""#), "{}", status.data);
    publisher.hub.mark_live();
    // A heartbeat may have said before that it is stale.
    while !client.next().await.data.contains(r#""upstream":"live""#) {}
}

/// A client gets the heartbeat that it asked for while the publisher is live, and no other status.
#[tokio::test]
async fn a_client_can_ask_for_a_shorter_heartbeat() {
    let publisher = Publisher::start(1);
    let gateway = Gateway::start(&publisher.url);
    gateway.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    let alive = tokio::spawn({
        let hub = std::sync::Arc::clone(&publisher.hub);
        async move {
            let mut often = tokio::time::interval(Duration::from_millis(50));
            loop {
                often.tick().await;
                hub.mark_live();
            }
        }
    });
    let mut client = gateway.follow("/statistics?topic=transfers/day&heartbeat=1").await;
    client.until_status().await;
    let opened = std::time::Instant::now();
    for _ in 0..2 {
        assert_eq!(client.next().await.event.as_deref(), Some("status"));
    }
    let seconds = opened.elapsed().as_secs_f64();
    // A heartbeat may come a little early, but not with each sign of life.
    assert!((0.5..8.0).contains(&seconds), "two heartbeats within {seconds} s");
    alive.abort();
}

/// The address of a stream, and twenty clients that have received its status.
async fn twenty_clients(gateway: &Gateway) -> (String, Vec<Client>) {
    let url = format!("{}/statistics?topic=transfers/day", gateway.url);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(&url, None).await;
        client.until_status().await;
        clients.push(client);
    }
    (url, clients)
}

#[tokio::test]
async fn on_shutdown_streams_end_within_the_drain_time_without_an_error() {
    let publisher = Publisher::start(1);
    let mut gateway = Gateway::start_with(&publisher.url, |settings| {
        settings.http.drain_timeout = Duration::from_secs(2);
    });
    gateway.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    let (_url, _clients) = twenty_clients(&gateway).await;
    drop(gateway.stop.take());
    tokio::time::timeout(DEADLINE, gateway.running).await.unwrap().unwrap().unwrap();
    assert_eq!(gateway.hub.subscribers(), 0, "no subscriber may be left");
}

/// The streams end over the drain time, and until then their clients must not see old numbers.
#[tokio::test]
async fn a_gateway_that_stops_publishes_until_its_last_stream_has_ended() {
    let publisher = Publisher::start(1);
    let mut gateway = Gateway::start_with(&publisher.url, |settings| {
        settings.http.drain_timeout = Duration::from_secs(600);
        // Longer than the test, so that only the follower could mark the counts as stale.
        settings.stream.internal_heartbeat = NonZeroDuration::from_millis(600_000);
    });
    gateway.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    // The stream of a single client could be the first to end.
    let (url, mut clients) = twenty_clients(&gateway).await;
    drop(gateway.stop.take());
    until("the gateway must stop", || gateway.hub.is_draining()).await;
    let version = publisher.count(Metric::Transfers, "2026-11-23T09:38:00Z");
    let events = clients.iter_mut().map(|client| Box::pin(client.next()));
    let (message, ..) = futures_util::future::select_all(events).await;
    assert_eq!(message.event.as_deref(), Some("patch"));
    assert_eq!(message.id.as_deref(), Some(event_id(&url, version).as_str()));
    gateway.running.abort();
}

/// On a slow line, a snapshot of all topics may take longer than `upstream.read_timeout`.
#[tokio::test]
async fn a_slow_upstream_is_not_silent() {
    let publisher = Publisher::start(1);
    let version: Version = publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z");
    let stream = reqwest::get(format!("{}{}", publisher.url, upstream::PATH)).await.unwrap();
    let mut bytes = stream.bytes_stream();
    let mut text = String::new();
    let id = format!("id: {version}");
    while !text.split_inclusive("\n\n").any(|event| event.contains(&id) && event.ends_with("\n\n"))
    {
        text.push_str(std::str::from_utf8(&bytes.next().await.unwrap().unwrap()).unwrap());
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let slow = async {
        loop {
            let (mut gateway, _) = listener.accept().await.unwrap();
            let request = gateway.read(&mut [0; 4_096]).await.unwrap();
            assert_ne!(request, 0, "the gateway must send a request");
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            gateway.write_all(head).await.unwrap();
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            for piece in text.as_bytes().chunks(text.len().div_ceil(20)) {
                pace.tick().await;
                // A gateway that gave up connects again.
                if gateway.write_all(piece).await.is_err() {
                    break;
                }
            }
        }
    };
    let gateway = Gateway::start_with(&url, |settings| {
        settings.upstream.read_timeout = NonZeroDuration::from_millis(500);
    });
    tokio::select! {
        () = gateway.until(version) => {}
        () = slow => {}
    }
}
