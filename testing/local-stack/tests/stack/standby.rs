//! Two stats-notifiers: one leads, and whatever becomes of it, the other goes on where it was.

use std::time::{Duration, Instant};

use local_stack::stack::{Part, Replicas};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::replicas::{Noticed, Services, noticed, role, until_leads};
use crate::support::{DEADLINE, until};

/// Within which a silent leader is replaced.
const TAKEOVER: Duration = Duration::from_secs(5);

/// Within which one is replaced whose session ends with it.
const HANDOVER: Duration = Duration::from_secs(2);

/// What there is in most of these tests.
const PAIR: Replicas = Replicas { stats_notifier: 2, ingest_api: 1, sse_gateway: 1, dashboard: 0 };

/// What a client notices of a new term: a status at most, and a snapshot after the one that it began with.
fn assert_only_a_snapshot(noticed: &Noticed) {
    assert!(noticed.stale <= 1, "{noticed:?}");
    assert_eq!((noticed.streams, noticed.snapshots), (1, 2), "{noticed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_the_other_is_ready_to() {
    let services =
        Services::start(Replicas { stats_notifier: 2, ingest_api: 0, sse_gateway: 0, dashboard: 0 }).await;
    let (leader, standby) = services.leader_and_standby().await;
    let get = async |instance, path: &str| {
        reqwest::get(format!("{}{path}", services.stack.internal_url(instance))).await.unwrap()
    };
    for (instance, leading) in [(leader, "notifier_leading 1"), (standby, "notifier_leading 0")] {
        assert_eq!(get(instance, "/readyz").await.status(), 200);
        let metrics = get(instance, "/metrics").await.text().await.unwrap();
        assert!(metrics.lines().any(|line| line == leading), "{instance} must say {leading}");
    }
    assert_eq!(get(leader, "/internal/v1/stream").await.status(), 200);
    let refused = get(standby, "/internal/v1/stream").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(problem["type"], "/problems/not-leading", "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_is_replaced_and_wakes_as_a_standby() {
    let mut services = Services::start(PAIR).await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(Part::SseGateway).await;
    services.post(20).await;
    services.until_exact(&subscriber, "before").await;
    let before = services.leading_backend(None).await;

    let producer = services.produce();
    let freezing = Instant::now();
    let frozen = services.stack.freeze(leader).await.unwrap();
    services.until_leads(standby).await;
    let took = freezing.elapsed();
    assert!(took < TAKEOVER, "the standby must lead in time, not after {took:?}");
    producer.finish().await;
    services.until_exact(&subscriber, "while the old leader is frozen").await;
    assert_only_a_snapshot(&noticed(&subscriber.heard()));
    // A listener that does not read would let the server's queue grow.
    until("the server must end all sessions of a frozen leader", async || {
        let kept = "SELECT FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = 'stats-notifier listener' HAVING count(*) > 1";
        services.client.query(kept, &[]).await.unwrap().is_empty().then_some(())
    })
    .await;

    // Gateways that ask while it is frozen are answered as soon as it wakes, before it need know that its term is over.
    let (producer, url) = (services.produce(), services.stack.internal_url(leader));
    let mut gateways = Vec::new();
    for _ in 0..20 {
        let mut gateway = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        gateway.write_all(b"GET /internal/v1/stream HTTP/1.1\r\nhost: notifier\r\n\r\n").await.unwrap();
        gateways.push(gateway);
    }
    frozen.thaw();
    for mut gateway in gateways {
        let mut answer = [0; 12];
        gateway.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 503", "an old state must be shown to nobody");
    }
    until("the old leader must wait", async || {
        (role(&url).await.as_deref() == Some("standby")).then_some(())
    })
    .await;
    services.stack.until_ready(leader, DEADLINE).await.unwrap();
    producer.finish().await;
    services.until_exact(&subscriber, "after").await;
    assert_only_a_snapshot(&noticed(&subscriber.heard()));
    services.leading_backend(Some(before)).await;
    services.until_rolled_up().await;
}

/// A function that waits, without a lock of the server's, for as long as a test's session [holds](HOLD) it there.
pub(crate) const WAIT: &str = "CREATE FUNCTION wait() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        WHILE NOT pg_try_advisory_xact_lock_shared(77) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN true; END $$;";
pub(crate) const HOLD: &str = "SELECT pg_advisory_lock(77)";
pub(crate) const LET_GO: &str = "SELECT pg_advisory_unlock(77)";

/// Where the last write of a flush is done, and the commit is not.
fn held_in_a_flush() -> String {
    format!(
        "{WAIT} CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM wait(); RETURN NEW; END $$;
        CREATE TRIGGER wait BEFORE UPDATE OF snapshot ON rollup_cursor FOR EACH ROW EXECUTE FUNCTION wait_here()"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_frozen_inside_a_flush_commits_nothing() {
    let services = Services::start_with(PAIR, &held_in_a_flush()).await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(Part::SseGateway).await;
    let backend = services.leading_backend(None).await;
    services.client.execute(HOLD, &[]).await.unwrap();
    services.post(20).await;
    services.until_backend(backend, "wait_event = 'PgSleep'").await;
    let freezing = Instant::now();
    let frozen = services.stack.freeze(leader).await.unwrap();
    services.client.execute(LET_GO, &[]).await.unwrap();
    services.until_backend(backend, "state = 'idle in transaction'").await;
    services.post(20).await;
    services.until_leads(standby).await;
    let took = freezing.elapsed();
    assert!(took < TAKEOVER, "the standby must lead in time, not after {took:?}");
    services.until_exact(&subscriber, "while the old leader is frozen").await;

    frozen.thaw();
    services.post(20).await;
    services.until_exact(&subscriber, "after").await;
    services.leader_and_standby().await;
    noticed(&subscriber.heard());
    services.until_rolled_up().await;
}

/// The server would wait for that lock as long as anybody holds it, and the frozen leader lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_frozen_while_it_waits_for_a_lock_is_replaced() {
    let services = Services::start(PAIR).await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(Part::SseGateway).await;
    services.post(1).await;
    services.until_rolled_up().await;
    let backend = services.leading_backend(None).await;
    // On a connection of its own: what a transaction is told of other sessions is what they did when it first asked.
    let blocker = services.connect().await;
    blocker.batch_execute("BEGIN; SELECT FROM rollup WHERE unit = 'year' FOR UPDATE").await.unwrap();
    services.post(20).await;
    services.until_backend(backend, "wait_event_type = 'Lock'").await;
    let freezing = Instant::now();
    let frozen = services.stack.freeze(leader).await.unwrap();
    services.until_backend(backend, "wait_event_type = 'Lock'").await;
    services.until_leads(standby).await;
    let took = freezing.elapsed();
    assert!(took < TAKEOVER, "the standby must lead in time, not after {took:?}");
    blocker.batch_execute("ROLLBACK").await.unwrap();

    frozen.thaw();
    services.until_exact(&subscriber, "after").await;
    noticed(&subscriber.heard());
    services.until_rolled_up().await;
}

/// The server would wait for it to read the rest of the rows, and the frozen leader lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_frozen_while_rows_are_sent_to_it_is_replaced() {
    // Only a tick that finds rows waits, once, before it sends the first.
    let held_at = format!(
        "{WAIT} ALTER TABLE count_log ENABLE ROW LEVEL SECURITY;
        CREATE POLICY wait ON count_log TO newcycle_notifier
            USING (CASE WHEN delta <> 0 AND current_query() LIKE 'SELECT%' THEN (SELECT wait()) ELSE true END)"
    );
    let services = Services::start_with(PAIR, &held_at).await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(Part::SseGateway).await;
    services.post(1).await;
    services.until_rolled_up().await;
    let backend = services.leading_backend(None).await;
    services.client.execute(HOLD, &[]).await.unwrap();
    // More than the sockets hold of it, and nothing in sum.
    let many = "INSERT INTO count_log (metric, bucket, delta) \
         SELECT 'item-creation', date_trunc('millisecond', created_at), sign(n) \
         FROM items, generate_series(-100000, 100000) AS n WHERE n <> 0";
    services.client.batch_execute(many).await.unwrap();
    services.until_backend(backend, "wait_event = 'PgSleep'").await;
    let freezing = Instant::now();
    let frozen = services.stack.freeze(leader).await.unwrap();
    services.client.execute(LET_GO, &[]).await.unwrap();
    services.until_backend(backend, "wait_event = 'ClientWrite'").await;
    // Loading so much then takes its time.
    services.leading_backend(Some(backend)).await;
    let took = freezing.elapsed();
    assert!(took < TAKEOVER, "the lead must be free in time, not after {took:?}");
    services.until_leads(standby).await;

    frozen.thaw();
    services.until_exact(&subscriber, "after").await;
    services.until_rolled_up().await;
}

/// Though the server is still at work for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_at_once() {
    let mut services = Services::start_with(PAIR, &held_in_a_flush()).await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(Part::SseGateway).await;
    let backend = services.leading_backend(None).await;
    services.client.execute(HOLD, &[]).await.unwrap();
    let producer = services.produce();
    services.until_backend(backend, "wait_event = 'PgSleep'").await;
    let killing = Instant::now();
    services.stack.kill(leader).await;
    services.until_leads(standby).await;
    let took = killing.elapsed();
    assert!(took < HANDOVER, "the standby must lead at once, not after {took:?}");
    services.client.execute(LET_GO, &[]).await.unwrap();
    services.stack.start_one(leader).unwrap();
    services.stack.until_ready(leader, DEADLINE).await.unwrap();
    assert_eq!(services.leader_and_standby().await, (standby, leader));
    producer.finish().await;
    services.until_exact(&subscriber, "after").await;
    assert_only_a_snapshot(&noticed(&subscriber.heard()));
    services.until_rolled_up().await;
}

/// Within the silence that a gateway bears, so that clients are not even told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_end_hands_over_unnoticed() {
    let mut services = Services::start(PAIR).await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(Part::SseGateway).await;
    let producer = services.produce();
    services.post(20).await;
    let (asking, url) = (Instant::now(), services.stack.internal_url(standby));
    let handed_over = async {
        until_leads(&url).await;
        asking.elapsed()
    };
    let (ended_well, took) = tokio::join!(services.stack.stop_one(leader, DEADLINE), handed_over);
    assert!(ended_well, "it must end without an error");
    assert!(took < HANDOVER, "the standby must lead at once, not after {took:?}");
    producer.finish().await;
    services.until_exact(&subscriber, "after").await;
    assert_eq!(noticed(&subscriber.heard()), Noticed { streams: 1, snapshots: 2, stale: 0 });
    services.until_rolled_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_session_is_ended_begins_no_second_count() {
    let services = Services::start(PAIR).await;
    let subscriber = services.subscribe(Part::SseGateway).await;
    services.leader_and_standby().await;
    let producer = services.produce();
    let backend = services.leading_backend(None).await;
    let end = "SELECT pg_terminate_backend($1)";
    assert!(services.client.query_one(end, &[&backend]).await.unwrap().get::<_, bool>(0));
    services.leading_backend(Some(backend)).await;
    services.leader_and_standby().await;
    producer.finish().await;
    services.until_exact(&subscriber, "after").await;
    assert_only_a_snapshot(&noticed(&subscriber.heard()));
    services.until_rolled_up().await;
}
