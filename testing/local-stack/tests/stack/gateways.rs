//! Gateways find the leader wherever it is, and clients go from one gateway to another.

use domain::FrameKind;
use local_stack::stack::{Part, Replicas};
use postgres_kit::locks::LEAD;
use statistics_stream::Upstream;

use crate::replicas::{Noticed, Services, noticed};
use crate::subscriber::Heard;
use crate::support::{DEADLINE, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_tries_every_address_for_the_leader() {
    let mut services =
        Services::start(Replicas { stats_notifier: 2, ingest_api: 1, sse_gateway: 1, dashboard: 0 }).await;
    let [first, second] = [1, 2].map(|number| Part::StatsNotifier.replica(number));
    // The lead goes to the second.
    assert!(services.stack.stop_one(first, DEADLINE).await);
    services.until_leads(second).await;
    services.stack.start_one(first).unwrap();
    assert_eq!(services.leader_and_standby().await, (second, first));
    services.post(20).await;
    for when in ["where the first address is a standby", "where the first address is dead"] {
        services.stack.restart(Part::SseGateway, DEADLINE).await.unwrap();
        services.stack.until_ready(Part::SseGateway, DEADLINE).await.unwrap();
        let subscriber = services.subscribe(Part::SseGateway).await;
        services.until_exact(&subscriber, when).await;
        services.stack.kill(first).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_on_at_another_gateway_with_a_patch() {
    let mut services =
        Services::start(Replicas { stats_notifier: 1, ingest_api: 1, sse_gateway: 2, dashboard: 0 }).await;
    let [first, second] = [1, 2].map(|number| Part::SseGateway.replica(number));
    let clients = [services.subscribe(first).await, services.subscribe(second).await];
    services.post(20).await;
    for client in &clients {
        services.until_exact(client, "at either gateway").await;
    }
    services.stack.kill(first).await;
    services.post(20).await;
    services.until_exact(&clients[1], "at the other gateway").await;
    let client = services.subscribe_from(clients[0].state(), second);
    services.until_exact(&client, "where it goes on").await;
    let heard = client.heard();
    assert!(matches!(heard[..], [Heard::Opened, Heard::Frame(FrameKind::Patch, _), ..]), "{heard:?}");
    assert_eq!(noticed(&heard), Noticed { streams: 1, snapshots: 0, stale: 0 });
}

/// Calls a function of Postgres for the lock of the lead.
fn lead(function: &str) -> String {
    format!("SELECT {function}({}, {})", LEAD.class, LEAD.purpose)
}

/// Here the test itself holds the lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_finds_only_standbys_says_so_until_one_leads() {
    let replicas = Replicas { stats_notifier: 2, ingest_api: 0, sse_gateway: 1, dashboard: 0 };
    let mut services = Services::start_with(replicas, &lead("pg_advisory_lock")).await;
    for number in [1, 2] {
        services.stack.until_ready(Part::StatsNotifier.replica(number), DEADLINE).await.unwrap();
    }
    let internal = services.stack.internal_url(Part::SseGateway);
    let readiness = async || Some(reqwest::get(format!("{internal}/readyz")).await.ok()?.status().as_u16());
    assert_eq!(until("the gateway must answer", readiness).await, 503);
    let subscriber = services.subscribe_from(None, Part::SseGateway);
    let said = async || subscriber.heard().into_iter().find(|heard| matches!(heard, Heard::Status(_)));
    let said = until("the gateway must say whether its numbers are live", said).await;
    assert!(matches!(said, Heard::Status(Upstream::Stale)), "{said:?}");
    let url = format!("{}/statistics/transfers/day", services.stack.url(Part::SseGateway));
    let once = reqwest::Client::new().get(url).header("accept", "application/json").send().await.unwrap();
    assert_eq!(once.status(), 503);

    services.client.batch_execute(&lead("pg_advisory_unlock")).await.unwrap();
    services.stack.until_ready(Part::SseGateway, DEADLINE).await.unwrap();
    services.until_exact(&subscriber, "once one leads").await;
    let heard = subscriber.heard();
    assert!(heard.iter().any(|heard| matches!(heard, Heard::Status(Upstream::Live))), "{heard:?}");
}
