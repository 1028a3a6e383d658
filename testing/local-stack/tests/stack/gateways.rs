//! Gateways find the leader, and clients move from one gateway to another.

use domain::FrameKind;
use local_stack::stack::{Replicas, ServiceKind};
use local_stack::test_database::client;
use postgres_kit::locks::LEAD;
use statistics_stream::UpstreamStatus;

use crate::replicas::{Observed, Services, observed};
use crate::subscriber::Received;
use crate::support::{DEADLINE, until};

/// Calls a function of Postgres for the lock of the lead.
fn lead(function: &str) -> String {
    format!("SELECT {function}({}, {})", LEAD.class, LEAD.purpose)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_tries_every_address_for_the_leader() {
    let mut services = Services::start(Replicas { stats_notifier: 2, ..Replicas::ONE }).await;
    let [first, second] = [1, 2].map(|number| ServiceKind::StatsNotifier.replica(number));
    // The first one stops, so the second one leads.
    assert!(services.stack.stop_one(first, DEADLINE).await);
    services.until_leads(second).await;
    services.stack.start_one(first).unwrap();
    assert_eq!(services.leader_and_standby().await, (second, first));
    services.post(20).await;
    for when in ["while the first address is a standby", "while the first address is dead"] {
        services.stack.restart(ServiceKind::SseGateway, DEADLINE).await.unwrap();
        services.stack.until_ready(ServiceKind::SseGateway, DEADLINE).await.unwrap();
        let subscriber = services.subscribe(ServiceKind::SseGateway).await;
        services.until_exact(&subscriber, when).await;
        services.stack.kill(first).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_resumes_at_another_gateway_with_a_patch() {
    let mut services = Services::start(Replicas { sse_gateway: 2, ..Replicas::ONE }).await;
    let [first, second] = [1, 2].map(|number| ServiceKind::SseGateway.replica(number));
    let clients = [services.subscribe(first).await, services.subscribe(second).await];
    services.post(20).await;
    for client in &clients {
        services.until_exact(client, "at either gateway").await;
    }
    services.stack.kill(first).await;
    services.post(20).await;
    services.until_exact(&clients[1], "at the other gateway").await;
    let client = services.subscribe_from(clients[0].state(), second);
    services.until_exact(&client, "after it has resumed").await;
    let received = client.received();
    assert!(
        matches!(received[..], [Received::Opened, Received::Frame(FrameKind::Patch, _), ..]),
        "{received:?}"
    );
    assert_eq!(observed(&received), Observed { streams: 1, snapshots: 0, stale: 0 });
}

/// The test holds the leader's lock, so no stats-notifier can lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_finds_only_standbys_is_stale_until_one_leads() {
    let replicas = Replicas { stats_notifier: 2, sse_gateway: 1, ..Replicas::NONE };
    let mut services = Services::start_with(replicas, &lead("pg_advisory_lock"), &[]).await;
    for notifier in [1, 2].map(|number| ServiceKind::StatsNotifier.replica(number)) {
        services.stack.until_ready(notifier, DEADLINE).await.unwrap();
    }
    let internal = services.stack.internal_url(ServiceKind::SseGateway);
    let readiness =
        async || Some(reqwest::get(format!("{internal}/readyz")).await.ok()?.status().as_u16());
    assert_eq!(until("the gateway must respond", readiness).await, 503);
    let subscriber = services.subscribe_from(None, ServiceKind::SseGateway);
    let status = async || {
        subscriber.received().into_iter().find(|received| matches!(received, Received::Status(_)))
    };
    let status = until("the gateway must send a status", status).await;
    assert!(matches!(status, Received::Status(UpstreamStatus::Stale)), "{status:?}");
    let url = format!("{}/statistics/transfers/day", services.stack.url(ServiceKind::SseGateway));
    let once = client().get(url).header("accept", "application/json").send().await.unwrap();
    assert_eq!(once.status(), 503);

    services.client.batch_execute(&lead("pg_advisory_unlock")).await.unwrap();
    services.stack.until_ready(ServiceKind::SseGateway, DEADLINE).await.unwrap();
    services.until_exact(&subscriber, "after one leads").await;
    let received = subscriber.received();
    assert!(
        received.iter().any(|received| matches!(received, Received::Status(UpstreamStatus::Live))),
        "{received:?}"
    );
}
