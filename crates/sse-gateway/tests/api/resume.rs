//! A client that reconnects ends in the same state as a client that never lost its connection.

use domain::{Metric, Statistics};
use futures_util::StreamExt;
use russe::Event;
use tokio_util::codec::Decoder;

use crate::support::{Client, Gateway, Publisher, apply, content, event_id};

#[tokio::test]
async fn a_stream_is_a_snapshot_and_then_patches() {
    let publisher = Publisher::start(1);
    let first = publisher.count(Metric::Transfers, "2026-11-23T09:37:12.345Z");
    let gateway = Gateway::start(&publisher.url);
    gateway.until(first).await;
    let mut client = Client::connect(&gateway.all_topics(), None).await;
    assert_eq!(client.until_status().await, ["snapshot"]);
    let second = publisher.count(Metric::ItemCreation, "2026-11-23T09:37:12.345Z");
    let message = client.next().await;
    assert_eq!(message.event.as_deref(), Some("patch"));
    assert_eq!(message.id.as_deref(), Some(event_id(&gateway.all_topics(), second).as_str()));
    let data = &message.data;
    assert!(!data.contains("transfers"), "a patch must name only changed topics: {data}");
    apply(&mut client.state, &message);
    assert_eq!(content(&client.state.unwrap()), publisher.hub.with_state(content).unwrap());
}

#[tokio::test]
async fn a_client_that_is_cut_off_at_any_byte_ends_in_the_same_state() {
    let publisher = Publisher::start(1);
    let gateway = Gateway::start(&publisher.url);
    let url = format!("{}/statistics?topic=transfers/second&topic=item-creation/day", gateway.url);
    gateway.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    // The bytes that a client receives whose connection is never cut.
    let mut body = reqwest::get(&url).await.unwrap().bytes_stream();
    let mut received = Vec::new();
    for second in 0..6 {
        let metric = if second % 2 == 0 { Metric::Transfers } else { Metric::ItemCreation };
        let version = publisher.count(metric, &format!("2026-11-23T09:37:0{second}Z"));
        let id = format!("id: {}\n", event_id(&url, version));
        while !String::from_utf8_lossy(&received).contains(&id) || !received.ends_with(b"\n\n") {
            received.extend_from_slice(&body.next().await.unwrap().unwrap());
        }
    }
    let last = publisher.hub.with_state(Statistics::version).unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for cut in 0..=received.len() {
        let mut bytes = received[..cut].into();
        let mut decoder = russe::Decoder::default();
        let mut state = None;
        while let Some(event) = decoder.decode(&mut bytes).unwrap() {
            if let Event::Message(message) = event {
                apply(&mut state, &message);
            }
        }
        let mut client = Client::connect(&url, state).await;
        kinds.extend(client.until_status().await);
        let state = client.state.unwrap();
        assert_eq!(state.version(), last, "cut after {cut} bytes");
        for topic in ["transfers/second", "item-creation/day"].map(|topic| topic.parse().unwrap()) {
            let whole = publisher.hub.with_state(|publisher| publisher.snapshot(topic, usize::MAX));
            assert_eq!(Some(state.snapshot(topic, usize::MAX)), whole, "cut after {cut} bytes");
        }
    }
    let kinds: Vec<_> = kinds.into_iter().collect();
    assert_eq!(kinds, ["patch", "snapshot"], "some resume by a patch, others by a snapshot");
}

#[tokio::test]
async fn a_client_of_another_term_gets_snapshots_and_one_that_is_ahead_waits() {
    let publisher = Publisher::start(1);
    let gateway = Gateway::start(&publisher.url);
    let version = publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z");
    gateway.until(version).await;
    let at = |version| Some(Statistics::new(version));
    let other = domain::Version { nonce: domain::Nonce::new(77), tick: 1 };
    let mut lost = Client::connect(&gateway.all_topics(), at(other)).await;
    assert_eq!(lost.until_status().await, ["snapshot"]);
    // As if the client had followed a gateway that is ahead of this one.
    let ahead = domain::Version { tick: version.tick + 2, ..version };
    let mut ahead = Client::connect(&gateway.all_topics(), at(ahead)).await;
    assert!(ahead.until_status().await.is_empty(), "a client that is ahead gets no frame");
    publisher.count(Metric::Transfers, "2026-11-23T09:38:00Z");
    publisher.count(Metric::Transfers, "2026-11-23T09:39:00Z");
    let third = publisher.count(Metric::Transfers, "2026-11-23T09:40:00Z");
    ahead.until(third).await;
}

/// Replacements of `EventSource` that cannot send headers put the id into the address.
#[tokio::test]
async fn the_last_event_id_may_be_a_query_parameter() {
    let publisher = Publisher::start(1);
    let gateway = Gateway::start(&publisher.url);
    let version = publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z");
    gateway.until(version).await;
    let day = format!("{}/statistics?topic=transfers/day", gateway.url);
    let year = format!("{}/statistics/transfers/year", gateway.url);
    let of_day = event_id(&day, version);
    for name in ["lastEventId", "lastEventID", "Last-Event-ID", "LASTEVENTID"] {
        let mut client = Client::connect(&format!("{day}&{name}={of_day}"), None).await;
        assert!(client.until_status().await.is_empty(), "{name}: the client has this version");
        let mut client = Client::connect(&format!("{year}?{name}=1"), None).await;
        assert_eq!(client.next().await.event.as_deref(), Some("snapshot"), "{name}");
    }
    // The header wins.
    let request = reqwest::Client::new().get(format!("{day}&lastEventId={of_day}"));
    let response = request.header("last-event-id", "unknown").send().await.unwrap();
    let mut client = Client::from(response);
    assert_eq!(client.next().await.event.as_deref(), Some("snapshot"));
}

/// Otherwise the client would get only changes to counts that it does not have.
#[tokio::test]
async fn an_id_of_another_selection_gets_a_snapshot() {
    let publisher = Publisher::start(1);
    let gateway = Gateway::start(&publisher.url);
    gateway.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:00Z")).await;
    let address = |query: &str| format!("{}/statistics{query}", gateway.url);
    let queries = [
        "?topic=transfers/day",
        "?topic=transfers/hour",
        "?topic=transfers/day&topic=transfers/hour",
        "?topic=transfers/day&last=5",
        "?topic=transfers/day&last=6",
        "/transfers/day?payload=full",
    ];
    for from in queries {
        let id = Client::connect(&address(from), None).await.next().await.id.unwrap();
        for to in queries {
            let request = reqwest::Client::new().get(address(to)).header("last-event-id", &*id);
            let mut client = Client::from(request.send().await.unwrap());
            let first = client.next().await;
            let is_frame = first.event.as_deref() != Some("status");
            assert_eq!(is_frame, from != to, "{from} and then {to}: {first:?}");
        }
    }
}

#[tokio::test]
async fn a_new_term_replaces_the_state_at_once() {
    let old = Publisher::start(1);
    let new = Publisher::start(2);
    let gateway = Gateway::start(&format!("{},{}", old.url, new.url));
    old.count(Metric::Transfers, "2026-11-23T09:37:00Z");
    let last = old.count(Metric::Transfers, "2026-11-23T09:38:00Z");
    let first = new.count(Metric::Transfers, "2026-11-23T09:37:00Z");
    gateway.until(last).await;
    let mut client = Client::connect(&gateway.all_topics(), None).await;
    client.until(last).await;
    old.hub.close();
    old.stop().await;
    client.until(first).await;
    assert_eq!(content(&client.state.unwrap()), new.hub.with_state(content).unwrap());
}

#[tokio::test]
async fn gateways_form_trees() {
    let publisher = Publisher::start(1);
    let near = Gateway::start(&publisher.url);
    let far = Gateway::start(&near.internal_url);
    far.until(publisher.count(Metric::Transfers, "2026-11-23T09:37:10Z")).await;
    let mut client = Client::connect(&far.all_topics(), None).await;
    for second in 11..30 {
        let version = publisher.count(Metric::Transfers, &format!("2026-11-23T09:37:{second}Z"));
        client.until(version).await;
        far.until(version).await;
    }
    assert_eq!(content(&client.state.unwrap()), publisher.hub.with_state(content).unwrap());
}
