//! Postgres fails over to its standby, under one address that moves: what it acknowledged is counted, what it lost is
//! taken back, and whoever it left behind is not followed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use domain::FrameKind;
use local_stack::postgres::{Cluster, Stop};
use local_stack::stack::{Part, Replicas};
use local_stack::test_database::{TestDatabase, installation};
use postgres_kit::database::DatabaseSettings;
use serde_json::{Value, json};
use stats_notifier::rebuild::take_over_and_rebuild;
use stats_notifier::store::StoreError;
use stats_notifier::verify::{Verifier, Way};
use tokio::sync::Notify;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::moving_address::MovingAddress;
use crate::own_postgres::{OwnPostgres, next_transaction};
use crate::replicas::{Services, noticed};
use crate::subscriber::Heard;
use crate::support::{DEADLINE, until};

const PAIR: Replicas = Replicas { stats_notifier: 2, ingest_api: 1, sse_gateway: 1, dashboard: 0 };

/// For how long a connection of a pool is used: here a second each.
const CONNECTION_SECONDS: [(Part, &str); 2] = [
    (Part::IngestApi, "NEWCYCLE__POOL__CONNECTION_LIFETIME"),
    (Part::StatsNotifier, "NEWCYCLE__HISTORY__POOL__CONNECTION_LIFETIME"),
];

/// Within which the services are with the promoted server, though nothing ends their sessions with the other one.
const RELOCATION: Duration = Duration::from_secs(20);

/// A primary, a standby that follows it, and services that know one address for both.
///
/// They end in this order: whoever connects before what it connects to, and a server before its folder is removed.
struct Pair {
    services: Services,
    address: MovingAddress,
    first: Cluster,
    _second: Cluster,
    primary: OwnPostgres,
    standby: OwnPostgres,
}

impl Pair {
    /// `name` is this test's alone.
    async fn start(name: &str) -> Self {
        let primary = OwnPostgres::new(installation(), &format!("{name}-primary"));
        let first = primary.start_migrated().await;
        let mut standby = OwnPostgres::new(installation(), &format!("{name}-standby"));
        standby.settings.parameters.push("log_connections=on".to_owned());
        standby.copy(&primary, &["--write-recovery-conf"]);
        let second = standby.start();
        let address = MovingAddress::leading_to(primary.settings.port).await;
        let database = DatabaseSettings { port: address.port, ..primary.database() };
        let variables = [1, 2].into_iter().flat_map(|number| {
            CONNECTION_SECONDS.map(|(part, variable)| (part.replica(number), variable, "1s".to_owned()))
        });
        let services = Services::start_on(database, PAIR, "", variables.collect()).await;
        let mut pair = Self { services, address, first, _second: second, primary, standby };
        pair.services.leader_and_standby().await;
        pair.services.stack.until_ready(Part::SseGateway, DEADLINE).await.unwrap();
        pair
    }

    /// Lets the standby take over, and the address lead to it.
    async fn fail_over(&mut self) {
        self.standby.promote().await;
        self.address.move_to(self.standby.settings.port);
        self.services.client = self.services.connect().await;
    }

    /// The standby receives nothing from now on.
    async fn part(&self) {
        let client = self.standby.connect().await;
        client.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        until("the standby must no longer follow", async || {
            let receivers = client.query("SELECT FROM pg_stat_wal_receiver", &[]).await.unwrap();
            receivers.is_empty().then_some(())
        })
        .await;
    }
}

/// Posts items one after another, each until it is acknowledged, as a producer must.
struct Persistent {
    acknowledged: Arc<Mutex<Vec<Uuid>>>,
    stop: CancellationToken,
    posting: AbortOnDropHandle<()>,
}

impl Persistent {
    fn start(services: &Services) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let (url, base_item) = (services.stack.url(Part::IngestApi), services.parents.base_item);
        let (list, stop) = (Arc::clone(&acknowledged), CancellationToken::new());
        let stopped = stop.clone();
        let posting = tokio::spawn(async move {
            let client = reqwest::Client::new();
            while !stopped.is_cancelled() {
                let id = Uuid::now_v7();
                let body = json!({ "id": id, "base_item_id": base_item }).to_string();
                let post = || {
                    let request = client.post(format!("{url}/items"));
                    request.header("content-type", "application/json").body(body.clone()).send()
                };
                loop {
                    let status = post().await.unwrap().status();
                    if status.is_success() {
                        break;
                    }
                    assert_eq!(status, 503, "whatever happens to the database, it is worth another attempt");
                }
                list.lock().unwrap().push(id);
            }
        });
        Self { acknowledged, stop, posting: AbortOnDropHandle::new(posting) }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more are acknowledged than just now.
    async fn until_more(&self, events: usize) {
        let wanted = self.acknowledged() + events;
        until("events must be acknowledged", async || (self.acknowledged() >= wanted).then_some(())).await;
    }

    /// Stops once the last one is acknowledged, and returns what was.
    async fn stop(self) -> HashSet<Uuid> {
        self.stop.cancel();
        self.posting.await.unwrap();
        self.acknowledged.lock().unwrap().iter().copied().collect()
    }
}

async fn items(client: &Client) -> HashSet<Uuid> {
    client.query("SELECT id FROM items", &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// How many items there are in any period; none while history cannot be had.
async fn items_in_history(services: &Services) -> Option<i64> {
    let gateway = services.stack.url(Part::SseGateway);
    let answer =
        reqwest::get(format!("{gateway}/statistics/item-creation/year?from=2000-01-01T00:00:00Z")).await;
    let page: Value = serde_json::from_str(&answer.unwrap().text().await.unwrap()).unwrap();
    Some(page["buckets"].as_array()?.iter().filter_map(|bucket| bucket["count"].as_i64()).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_failover_loses_nothing_that_was_acknowledged() {
    let mut pair = Pair::start("synchronous").await;
    let client = &pair.services.client;
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("the standby must be synchronous", async || {
        let find = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'";
        client.query_opt(find, &[]).await.unwrap()
    })
    .await;
    let subscriber = pair.services.subscribe(Part::SseGateway).await;
    let producer = Persistent::start(&pair.services);
    producer.until_more(100).await;
    pair.first.stop_in(Stop::Kill);
    // In the other order: what is sent in between is sent to a standby.
    pair.address.move_to(pair.standby.settings.port);
    until("ingest-api must have come to a standby", async || {
        let log = std::fs::read_to_string(pair.standby.settings.folder.join("postgres.log")).unwrap();
        log.contains("user=newcycle_ingest database=newcycle").then_some(())
    })
    .await;
    // What it has may be old.
    let url = format!("{}/items", pair.services.stack.url(Part::IngestApi));
    assert_eq!(reqwest::get(url).await.unwrap().status(), 503, "nothing is read from a standby");
    pair.fail_over().await;
    producer.until_more(100).await;
    let acknowledged = producer.stop().await;

    pair.services.until_exact(&subscriber, "after the failover").await;
    assert_eq!(items(&pair.services.client).await, acknowledged, "each is there");
    // No count that anybody was shown ever fell.
    let noticed = noticed(&subscriber.heard());
    assert_eq!((noticed.streams, noticed.snapshots), (1, 2), "{noticed:?}");
    pair.services.until_rolled_up().await;
}

/// The leader has counted what is lost, and sleeps through the failover; the transaction ids of what is lost are those of
/// other events then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_asynchronous_failover_loses_is_taken_back() {
    let mut pair = Pair::start("asynchronous").await;
    let (leader, other) = pair.services.leader_and_standby().await;
    let subscriber = pair.services.subscribe(Part::SseGateway).await;
    pair.services.post(20).await;
    pair.services.until_exact(&subscriber, "before").await;
    pair.services.until_rolled_up().await;
    pair.standby.until_caught_up(&pair.services.client).await;
    pair.part().await;
    for _ in 0..10 {
        pair.services.post(5).await;
    }
    pair.services.until_exact(&subscriber, "on the primary").await;
    pair.services.until_rolled_up().await;
    let (lost, before) = (subscriber.state(), items(&pair.services.client).await);
    let of_the_lost = next_transaction(&pair.services.client).await;

    let frozen = pair.services.stack.freeze(leader).await.unwrap();
    pair.first.stop_in(Stop::Kill);
    pair.fail_over().await;
    pair.services.until_leads(other).await;
    assert_eq!(items(&pair.services.client).await.len(), before.len() - 50, "this much is lost");
    pair.services.until_exact(&subscriber, "once the lost events are taken back").await;
    assert!(next_transaction(&pair.services.client).await < of_the_lost, "ids must be given anew");
    while next_transaction(&pair.services.client).await <= of_the_lost {
        pair.services.post(1).await;
    }
    frozen.thaw();
    pair.services.until_exact(&subscriber, "once their transaction ids are those of others").await;
    let of_what_is_lost = lost.as_ref().unwrap().version().nonce;
    let heard = subscriber.heard();
    let next = heard.iter().find_map(|heard| match heard {
        Heard::Frame(kind, shown) if shown.version.nonce != of_what_is_lost => Some(*kind),
        _ => None,
    });
    assert_eq!(next, Some(FrameKind::Snapshot), "the lost state is replaced as a whole");
    // Whoever was away meanwhile does not go on from what is lost.
    let late = pair.services.subscribe_from(lost, Part::SseGateway);
    pair.services.until_exact(&late, "for one who comes back with the lost state").await;
    let heard = late.heard();
    assert!(matches!(heard[..], [Heard::Opened, Heard::Frame(FrameKind::Snapshot, _), ..]), "{heard:?}");
    pair.services.until_rolled_up().await;
}

/// As where its machine is gone, and a proxy still answers for it: no timeout of TCP ends the sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_is_left_for_the_promoted_one() {
    let mut pair = Pair::start("hanging").await;
    let subscriber = pair.services.subscribe(Part::SseGateway).await;
    pair.services.post(20).await;
    pair.services.until_exact(&subscriber, "before").await;
    pair.standby.until_caught_up(&pair.services.client).await;
    let database = DatabaseSettings { port: pair.address.port, ..pair.primary.database() };
    let check = Verifier::connect(&database).await.unwrap();
    pair.address.hang();
    pair.fail_over().await;
    let failed_over = Instant::now();
    let (interval, mut to_nobody) = (Duration::from_millis(100), |_| ());
    let checked = check.verify_here(Way::OneSnapshot, &database, interval, &mut to_nobody);
    let checked = tokio::time::timeout(DEADLINE, checked).await.expect("a check must end, too");
    assert!(matches!(checked, Err(StoreError::LeftBehind)), "{checked:?}");
    let producer = Persistent::start(&pair.services);
    producer.until_more(20).await;
    producer.stop().await;
    pair.services.until_exact(&subscriber, "after").await;
    let took = failed_over.elapsed();
    assert!(took < RELOCATION, "the numbers must be live again in time, not after {took:?}");
    pair.services.leader_and_standby().await;
    noticed(&subscriber.heard());
    pair.services.until_rolled_up().await;
}

/// As where nobody has stopped it, and the sessions that were open go on as if nothing had happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_does_not_know_it_was_replaced_is_left_for_the_promoted_one() {
    let mut pair = Pair::start("replaced").await;
    let subscriber = pair.services.subscribe(Part::SseGateway).await;
    pair.services.post(20).await;
    pair.services.until_exact(&subscriber, "before").await;
    pair.standby.until_caught_up(&pair.services.client).await;
    // From here on there are sessions for everything.
    assert_eq!(items_in_history(&pair.services).await, Some(20));
    pair.part().await;
    pair.fail_over().await;
    let failed_over = Instant::now();
    let base_item = pair.services.parents.base_item;
    let insert = |events| {
        format!(
            "INSERT INTO items SELECT gen_random_uuid(), '{base_item}', now() FROM generate_series(1, {events})"
        )
    };
    // Of another history: they may be shown until the services have moved, and never again.
    pair.primary.connect().await.batch_execute(&insert(500)).await.unwrap();
    pair.services.client.batch_execute(&insert(10)).await.unwrap();
    pair.services.until_exact(&subscriber, "where the address leads").await;
    until("history must be that of where the address leads", async || {
        (items_in_history(&pair.services).await == Some(30)).then_some(())
    })
    .await;
    let before = items(&pair.services.client).await.len();
    until("what is acknowledged must be there", async || {
        pair.services.post(1).await;
        (items(&pair.services.client).await.len() > before).then_some(())
    })
    .await;
    let took = failed_over.elapsed();
    assert!(took < RELOCATION, "everybody must be there in time, not after {took:?}");
    pair.services.leader_and_standby().await;
    pair.services.until_exact(&subscriber, "in the end").await;
    pair.services.until_rolled_up().await;
}

/// What an operator asks for must end, too. That the session is known to nobody stands for a server that was replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_and_a_check_leave_a_server_that_hangs() {
    let database = TestDatabase::create().await;
    let superuser = database.connect().await;
    let event = "INSERT INTO base_items VALUES (gen_random_uuid(), 'a thing'); \
         INSERT INTO items SELECT gen_random_uuid(), id, now() FROM base_items";
    superuser.batch_execute(event).await.unwrap();
    let mut settings = stats_notifier::settings::Settings::load().unwrap();
    settings.database = database.notifier();
    settings.leader.address_check_interval = service_kit::settings::NonZeroDuration::from_millis(100);
    take_over_and_rebuild(&settings, &mut |_| ()).await.unwrap();
    for command in ["rebuild", "verify"] {
        let (address, hung) = (MovingAddress::leading_to(database.notifier().port).await, Notify::new());
        settings.database.port = address.port;
        let mut hang = |_| {
            address.hang();
            hung.notify_one();
        };
        let asked = async {
            match command {
                "rebuild" => take_over_and_rebuild(&settings, &mut hang).await.map(|_| ()),
                _ => {
                    let check = Verifier::connect(&settings.database).await?;
                    let (way, interval) = (Way::OneSnapshot, Duration::from_millis(100));
                    check.verify_here(way, &settings.database, interval, &mut hang).await.map(|_| ())
                }
            }
        };
        let replaced = async {
            hung.notified().await;
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name LIKE 'stats-notifier%'";
            superuser.query(end, &[]).await.unwrap();
        };
        let (asked, ()) = tokio::join!(tokio::time::timeout(DEADLINE, asked), replaced);
        let asked = asked.unwrap_or_else(|_| panic!("{command} must end"));
        assert!(matches!(asked, Err(StoreError::LeftBehind)), "{command}: {asked:?}");
    }
}
