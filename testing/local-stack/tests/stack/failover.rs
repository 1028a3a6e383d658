//! Postgres fails over to its standby, and the address of both moves: acknowledged events are
//! counted, lost events are subtracted, and the services leave the old primary.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::FrameKind;
use local_stack::link::{Link, LinkMode};
use local_stack::postgres::{Cluster, StopMode};
use local_stack::stack::{Replicas, ServiceKind, Variable};
use local_stack::test_database::{TestDatabase, client, http_client, installation};
use parking_lot::Mutex;
use postgres_kit::database::DatabaseSettings;
use serde_json::{Value, json};
use service_kit::settings::NonZeroDuration;
use service_kit::settings::ProgramSettings as _;
use stats_notifier::rebuild::take_over_and_rebuild;
use stats_notifier::store::StoreError;
use stats_notifier::verify::{Verifier, VerifyMode};
use tokio::sync::Notify;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::own_postgres::{OwnPostgres, connect, next_transaction};
use crate::replicas::{Services, observed, summary};
use crate::subscriber::Received;
use crate::support::{DEADLINE, until};

pub(crate) const PAIR: Replicas = Replicas { stats_notifier: 2, ..Replicas::ONE };

/// The pools soon replace a connection, even one that works.
const CONNECTION_LIFETIME: [Variable<'_>; 3] = [
    (ServiceKind::IngestApi, "NEWCYCLE__POOL__CONNECTION_LIFETIME", "1s"),
    (ServiceKind::IngestApi, "NEWCYCLE__READ_POOL__CONNECTION_LIFETIME", "1s"),
    (ServiceKind::StatsNotifier, "NEWCYCLE__HISTORY__POOL__CONNECTION_LIFETIME", "1s"),
];

/// How long it may take until the services use the promoted server, although nothing ends their
/// sessions on the other one.
const RELOCATION_TIMEOUT: Duration = Duration::from_secs(20);

/// A primary, its standby, and services that use one address for both.
///
/// The order of the fields is the order of their end: clients before servers, and servers before
/// their folders are removed.
struct Pair {
    services: Services,
    address: Link,
    first: Cluster,
    _second: Cluster,
    primary: OwnPostgres,
    standby: OwnPostgres,
}

impl Pair {
    /// Starts both servers and the services. `name` is a part of the folders' names.
    async fn start(name: &str) -> Self {
        let primary = OwnPostgres::new(installation(), &format!("{name}-primary"));
        let first = primary.start_migrated().await;
        let mut standby = OwnPostgres::new(installation(), &format!("{name}-standby"));
        standby.settings.parameters.push("log_connections=on".to_owned());
        standby.copy(&primary, &["--write-recovery-conf"]);
        let second = standby.start();
        let address =
            Link::to("services to Postgres".to_owned(), primary.settings.port).await.unwrap();
        let database = DatabaseSettings { port: address.port().into(), ..primary.database() };
        let services = Services::start_on(database, PAIR, "", &CONNECTION_LIFETIME).await;
        let mut pair = Self { services, address, first, _second: second, primary, standby };
        pair.services.leader_and_standby().await;
        pair.services.stack.until_ready(ServiceKind::SseGateway, DEADLINE).await.unwrap();
        pair
    }

    /// Promotes the standby, and moves the address to it.
    async fn fail_over(&mut self) {
        self.standby.promote().await;
        self.address.move_to(self.standby.settings.port);
        self.services.client = self.services.connect().await;
    }

    /// Stops replication to the standby.
    async fn stop_replication(&self) {
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

/// Posts one item after another, and repeats each until it is acknowledged, as producers should.
pub(crate) struct RepeatingProducer {
    acknowledged: Arc<Mutex<Vec<Uuid>>>,
    stop: CancellationToken,
    posting: AbortOnDropHandle<()>,
}

impl RepeatingProducer {
    pub(crate) fn start(services: &Services) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let url = services.stack.url(ServiceKind::IngestApi);
        let base_item = services.parents.base_item;
        let list = Arc::clone(&acknowledged);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let posting = tokio::spawn(async move {
            let client = http_client().build().unwrap();
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
                    assert_eq!(status, 503, "a failure of the database must invite a repeat");
                }
                list.lock().push(id);
            }
        });
        Self { acknowledged, stop, posting: AbortOnDropHandle::new(posting) }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().len()
    }

    /// Waits until this number of further events is acknowledged.
    pub(crate) async fn until_more(&self, events: usize) {
        let wanted = self.acknowledged() + events;
        until("events must be acknowledged", async || {
            (self.acknowledged() >= wanted).then_some(())
        })
        .await;
    }

    /// Stops when the last item is acknowledged, and returns the acknowledged ones.
    pub(crate) async fn stop(self) -> HashSet<Uuid> {
        self.stop.cancel();
        self.posting.await.unwrap();
        self.acknowledged.lock().iter().copied().collect()
    }
}

pub(crate) async fn items(client: &Client) -> HashSet<Uuid> {
    client.query("SELECT id FROM items", &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The number of items in the whole history. `None` while there is no history.
async fn items_in_history(services: &Services) -> Option<i64> {
    let gateway = services.stack.url(ServiceKind::SseGateway);
    let answer = client()
        .get(format!("{gateway}/statistics/item-creation/year?from=2000-01-01T00:00:00Z"))
        .send()
        .await;
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
    let subscriber = pair.services.subscribe(ServiceKind::SseGateway).await;
    let producer = RepeatingProducer::start(&pair.services);
    producer.until_more(100).await;
    pair.first.stop_with(StopMode::Kill);
    // The address moves before the promotion, so that requests reach a standby in between.
    pair.address.move_to(pair.standby.settings.port);
    until("ingest-api must have connected to the standby", async || {
        let log =
            std::fs::read_to_string(pair.standby.settings.folder.join("postgres.log")).unwrap();
        log.contains("user=newcycle_ingest database=newcycle").then_some(())
    })
    .await;
    // A standby's data may be old.
    let url = format!("{}/items", pair.services.stack.url(ServiceKind::IngestApi));
    assert_eq!(
        http_client().build().unwrap().get(url).send().await.unwrap().status(),
        503,
        "nothing may be read from a standby"
    );
    pair.fail_over().await;
    producer.until_more(100).await;
    let acknowledged = producer.stop().await;

    pair.services.until_exact(&subscriber, "after the failover").await;
    let stored = items(&pair.services.client).await;
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    let unexpected: Vec<_> = stored.difference(&acknowledged).collect();
    assert!(lost.is_empty() && unexpected.is_empty(), "lost: {lost:?}, unexpected: {unexpected:?}");
    // Whether a count has fallen is not checked. When the postmaster is killed, commits stop
    // waiting for the standby, and a tick may still show their rows before its own session ends.
    // They were not acknowledged, and the failover loses them.
    let observed = summary(&subscriber.received());
    assert_eq!((observed.streams, observed.snapshots), (1, 2), "{observed:?}");
    pair.services.until_rolled_up().await;
}

/// A commit that stops waiting for its standby leaves a row that everybody can read and that a
/// failover loses. To call it stored would be an acknowledgement of an event that may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_acknowledged_only_once_its_row_is_replicated() {
    let primary = OwnPostgres::new(installation(), "repeat");
    let _running = primary.start_migrated().await;
    let ingest_api = Replicas { ingest_api: 1, ..Replicas::NONE };
    let settings = &[(ServiceKind::IngestApi, "NEWCYCLE__LIMITS__QUERY_TIMEOUT", "5s")];
    let services = Services::start_on(primary.database(), ingest_api, "", settings).await;
    let client = &services.client;
    // This session's own commits do not wait.
    client.batch_execute("SET synchronous_commit = local").await.unwrap();
    let set = "ALTER SYSTEM SET synchronous_standby_names = 'absent'";
    client.batch_execute(set).await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let id = Uuid::now_v7();
    let insert = format!("INSERT INTO items SELECT '{id}', id, now() FROM base_items");
    // Commits that do not wait yet are undone, until one waits.
    let waiting = until("a commit must wait for the standby", async || {
        let writer = connect(&primary.database()).await;
        let find = "SELECT pg_backend_pid()";
        let backend: i32 = writer.query_one(find, &[]).await.unwrap().get(0);
        let insert = insert.clone();
        let commit = tokio::spawn(async move { writer.batch_execute(&insert).await });
        let waits = async || {
            let find = "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $1";
            let waits = client.query_opt(find, &[&backend]).await.unwrap();
            waits.and_then(|row| row.get::<_, Option<bool>>(0)).unwrap_or(false)
        };
        while !commit.is_finished() {
            if waits().await {
                return Some((backend, commit));
            }
        }
        client.batch_execute(&format!("DELETE FROM items WHERE id = '{id}'")).await.unwrap();
        None
    });
    let (backend, commit) = waiting.await;
    client.query_one("SELECT pg_cancel_backend($1)", &[&backend]).await.unwrap();
    commit.await.unwrap().unwrap();
    let base_item = services.parents.base_item;
    let post = async || {
        let url = format!("{}/items", services.stack.url(ServiceKind::IngestApi));
        let body = json!({ "id": id, "base_item_id": base_item }).to_string();
        let request = http_client().build().unwrap().post(url).body(body);
        let request = request.header("content-type", "application/json");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(items(client).await, HashSet::from([id]), "the row can be read");
    assert_eq!(post().await, 503, "the row is not replicated");

    // The row is lost, and so is the session that has read it: what it read proves nothing now.
    // The session of the request that was answered 503 may still wait, or begin to.
    let now = client.query_one("SELECT clock_timestamp()", &[]).await.unwrap();
    let answered: time::OffsetDateTime = now.get(0);
    let reader = async || -> Option<i32> {
        let find = "SELECT pid FROM pg_stat_activity
                    WHERE wait_event = 'SyncRep' AND query LIKE '%pg_logical_emit_message%'
                    AND query_start > $1";
        Some(client.query_opt(find, &[&answered]).await.unwrap()?.get(0))
    };
    let release = async || {
        let ended = until("the repeat must wait for the standby", reader).await;
        client.batch_execute(&format!("DELETE FROM items WHERE id = '{id}'")).await.unwrap();
        client.query_one("SELECT pg_terminate_backend($1)", &[&ended]).await.unwrap();
        client.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    };
    let (status, ()) = tokio::join!(post(), release());
    assert_eq!(status, 201, "the row must be stored again");
    assert_eq!(items(client).await, HashSet::from([id]));
    assert_eq!(post().await, 200);
}

/// The leader has counted the lost events, and is frozen during the failover. When it thaws, other
/// events have the transaction ids of the lost ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_an_asynchronous_failover_loses_are_subtracted() {
    let mut pair = Pair::start("asynchronous").await;
    let (leader, other) = pair.services.leader_and_standby().await;
    let subscriber = pair.services.subscribe(ServiceKind::SseGateway).await;
    pair.services.post(20).await;
    pair.services.until_exact(&subscriber, "before").await;
    pair.services.until_rolled_up().await;
    pair.standby.until_caught_up(&pair.services.client).await;
    pair.stop_replication().await;
    for _ in 0..10 {
        pair.services.post(5).await;
    }
    pair.services.until_exact(&subscriber, "on the primary").await;
    pair.services.until_rolled_up().await;
    let lost = subscriber.state();
    let before = items(&pair.services.client).await;
    let lost_transaction = next_transaction(&pair.services.client).await;

    let frozen = pair.services.stack.freeze(leader).await.unwrap();
    pair.first.stop_with(StopMode::Kill);
    pair.fail_over().await;
    pair.services.until_leads(other).await;
    assert_eq!(
        items(&pair.services.client).await.len(),
        before.len() - 50,
        "50 items must be lost"
    );
    pair.services.until_exact(&subscriber, "after the lost events are subtracted").await;
    assert!(
        next_transaction(&pair.services.client).await < lost_transaction,
        "transaction ids must be assigned again"
    );
    while next_transaction(&pair.services.client).await <= lost_transaction {
        pair.services.post(1).await;
    }
    frozen.thaw();
    pair.services.until_exact(&subscriber, "after other events got their transaction ids").await;
    let lost_nonce = lost.as_ref().unwrap().version().nonce;
    let received = subscriber.received();
    let next = received.iter().find_map(|received| match received {
        Received::Frame(kind, shown) if shown.version.nonce != lost_nonce => Some(*kind),
        _ => None,
    });
    assert_eq!(next, Some(FrameKind::Snapshot), "a snapshot must replace the lost state");
    // A client that was not connected meanwhile does not resume from the lost state.
    let late = pair.services.subscribe_from(lost, ServiceKind::SseGateway);
    pair.services.until_exact(&late, "for a client that returns with the lost state").await;
    let received = late.received();
    assert!(
        matches!(received[..], [Received::Opened, Received::Frame(FrameKind::Snapshot, _), ..]),
        "{received:?}"
    );
    pair.services.until_rolled_up().await;
}

/// The primary's machine is gone, and a proxy still answers for it, so no TCP timeout ends the
/// sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_leave_a_primary_that_hangs() {
    let mut pair = Pair::start("hanging").await;
    let subscriber = pair.services.subscribe(ServiceKind::SseGateway).await;
    pair.services.post(20).await;
    pair.services.until_exact(&subscriber, "before").await;
    pair.standby.until_caught_up(&pair.services.client).await;
    let interval = Duration::from_millis(100);
    let verifier = Verifier::connect(&pair.services.database, interval).await.unwrap();
    pair.address.set(LinkMode::Hung);
    pair.fail_over().await;
    let failed_over = Instant::now();
    let mut ignore = |_| ();
    let checked = verifier.verify(VerifyMode::OneSnapshot, &mut ignore);
    let checked = tokio::time::timeout(DEADLINE, checked).await.expect("a check must end too");
    assert!(matches!(checked, Err(StoreError::ServerReplaced)), "{checked:?}");
    let producer = RepeatingProducer::start(&pair.services);
    producer.until_more(20).await;
    producer.stop().await;
    pair.services.until_exact(&subscriber, "after").await;
    let took = failed_over.elapsed();
    assert!(
        took < RELOCATION_TIMEOUT,
        "the numbers must be live again within {RELOCATION_TIMEOUT:?}, not after {took:?}"
    );
    pair.services.leader_and_standby().await;
    observed(&subscriber.received());
    pair.services.until_rolled_up().await;
}

/// Only the session through which the leader writes hangs, and a fold has no time limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_notices_that_its_second_session_is_gone() {
    let database = TestDatabase::create().await;
    let address = Link::to("services to Postgres".to_owned(), database.port()).await.unwrap();
    let linked = DatabaseSettings { port: address.port().into(), ..database.superuser() };
    let mut services = Services::start_on(linked, Replicas::ONE, "", &[]).await;
    services.until_ready().await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    let upkeep = services.upkeep_backend().await;
    let find = "SELECT client_port FROM pg_stat_activity WHERE pid = $1";
    let port: i32 = services.client.query_one(find, &[&upkeep]).await.unwrap().get(0);
    address.set(LinkMode::HungFrom(port.try_into().unwrap()));
    services.post(20).await;
    services.until_exact(&subscriber, "while the second session hangs").await;
    services.until_rolled_up().await;
    observed(&subscriber.received());
}

/// The old primary was not stopped, so the open sessions go on working.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_leave_a_primary_that_was_not_stopped() {
    let mut pair = Pair::start("replaced").await;
    let subscriber = pair.services.subscribe(ServiceKind::SseGateway).await;
    pair.services.post(20).await;
    pair.services.until_exact(&subscriber, "before").await;
    pair.standby.until_caught_up(&pair.services.client).await;
    // After this every service has open sessions.
    assert_eq!(items_in_history(&pair.services).await, Some(20));
    pair.stop_replication().await;
    pair.fail_over().await;
    let failed_over = Instant::now();
    let base_item = pair.services.parents.base_item;
    let insert = |events| {
        format!(
            "INSERT INTO items SELECT gen_random_uuid(), '{base_item}', now() FROM generate_series(1, {events})"
        )
    };
    // These events are not in the promoted server. They may be shown only until the services move.
    pair.primary.connect().await.batch_execute(&insert(500)).await.unwrap();
    pair.services.client.batch_execute(&insert(10)).await.unwrap();
    pair.services.until_exact(&subscriber, "on the promoted server").await;
    until("history must come from the promoted server", async || {
        (items_in_history(&pair.services).await == Some(30)).then_some(())
    })
    .await;
    let before = items(&pair.services.client).await.len();
    until("acknowledged events must be on the promoted server", async || {
        pair.services.post(1).await;
        (items(&pair.services.client).await.len() > before).then_some(())
    })
    .await;
    let took = failed_over.elapsed();
    assert!(
        took < RELOCATION_TIMEOUT,
        "all services must have moved within {RELOCATION_TIMEOUT:?}, not after {took:?}"
    );
    pair.services.leader_and_standby().await;
    pair.services.until_exact(&subscriber, "in the end").await;
    pair.services.until_rolled_up().await;
}

/// Commands of operators must end too. The terminated session stands for a server that was
/// replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_and_a_verification_end_if_the_server_hangs() {
    let database = TestDatabase::create().await;
    let superuser = database.connect().await;
    let event = "INSERT INTO base_items VALUES (gen_random_uuid(), 'a thing'); \
         INSERT INTO items SELECT gen_random_uuid(), id, now() FROM base_items";
    superuser.batch_execute(event).await.unwrap();
    let mut settings = stats_notifier::settings::Settings::load().unwrap();
    settings.database = database.notifier();
    settings.leader.address_check_interval = NonZeroDuration::from_millis(100);
    take_over_and_rebuild(&settings, &mut |_| ()).await.unwrap();
    for command in ["rebuild", "verify"] {
        let address = Link::to("services to Postgres".to_owned(), database.port()).await.unwrap();
        let hung = Notify::new();
        settings.database.port = address.port().into();
        let mut hang = |_| {
            address.set(LinkMode::Hung);
            hung.notify_one();
        };
        let asked = async {
            match command {
                "rebuild" => take_over_and_rebuild(&settings, &mut hang).await.map(|_| ()),
                _ => {
                    let interval = settings.leader.address_check_interval.get();
                    let verifier = Verifier::connect(&settings.database, interval).await?;
                    verifier.verify(VerifyMode::OneSnapshot, &mut hang).await.map(|_| ())
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
        assert!(matches!(asked, Err(StoreError::ServerReplaced)), "{command}: {asked:?}");
    }
}
