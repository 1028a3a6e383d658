//! Two stats-notifiers. If the leader fails in any way, the other one continues from its state.

use std::time::Duration;

use local_stack::internal;
use local_stack::stack::{Replicas, ServiceKind};
use postgres_kit::locks::LEAD;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::replicas::{Observed, Services, observed, role, until_leads};
use crate::support::{DEADLINE, until};

/// How soon the standby must hold the lead of a frozen leader, [in steps](crate::support::within).
/// By default, the server ends the session of a silent leader after 3 s
/// (`leader.session_timeout`), and the standby tries to lead every 250 ms. What is left is for the
/// few times that one of the processes waits for the processor. It is too short for any other
/// timeout, such as those of TCP.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeouts that must not be what ends a wait, such as the session timeout and the gateway's
/// heartbeat in the tests of a leader that ends. They are longer than [`DEADLINE`], within which
/// the standby must lead, so a takeover that had to wait for one of them fails the test.
const NEVER_REACHED: &str = "120s";

/// At least twice the heartbeat.
const SILENCE_NEVER_REACHED: &str = "240s";

/// The services of most of these tests.
const PAIR: Replicas = Replicas { stats_notifier: 2, ..Replicas::ONE };

/// Checks what a client observes of a new term: at most one `stale` status, and one snapshot after
/// its first.
fn assert_only_a_snapshot(observed: &Observed) {
    assert!(observed.stale <= 1, "{observed:?}");
    assert_eq!((observed.streams, observed.snapshots), (1, 2), "{observed:?}");
}

/// Starts services that are not to wait for a timeout when a leader ends.
async fn start_without_timeouts(before: &str) -> Services {
    let variables = [
        (ServiceKind::StatsNotifier, "NEWCYCLE__LEADER__SESSION_TIMEOUT", NEVER_REACHED),
        (ServiceKind::SseGateway, "NEWCYCLE__STREAM__INTERNAL_HEARTBEAT", NEVER_REACHED),
        (ServiceKind::SseGateway, "NEWCYCLE__UPSTREAM__READ_TIMEOUT", SILENCE_NEVER_REACHED),
    ];
    let mut services = Services::start_with(PAIR, before, &variables).await;
    services.until_ready().await;
    services
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_the_other_is_ready_as_a_standby() {
    let services = Services::start(Replicas { stats_notifier: 2, ..Replicas::NONE }).await;
    let (leader, standby) = services.leader_and_standby().await;
    let get = async |instance, path: &str| {
        internal::get(format!("{}{path}", services.stack.internal_url(instance))).await.unwrap()
    };
    for (instance, leading) in [(leader, "notifier_leading 1"), (standby, "notifier_leading 0")] {
        assert_eq!(get(instance, "/readyz").await.status(), 200);
        let metrics = get(instance, "/metrics").await.text().await.unwrap();
        assert!(metrics.lines().any(|line| line == leading), "{instance} must report {leading}");
    }
    assert_eq!(get(leader, "/internal/v1/stream").await.status(), 200);
    let refused = get(standby, "/internal/v1/stream").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(problem["type"], "/problems/not-leading", "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_is_replaced_and_thaws_as_a_standby() {
    // A connection that is accepted after a long freeze may at once count as idle since before it.
    let idle = (ServiceKind::StatsNotifier, "NEWCYCLE__INTERNAL__IDLE_TIMEOUT", NEVER_REACHED);
    let mut services = Services::start_with(PAIR, "", &[idle]).await;
    services.until_ready().await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    services.post(20).await;
    services.until_exact(&subscriber, "before").await;
    let before = services.leading_backend(None).await;

    let producer = services.produce();
    let frozen = services.stack.freeze(leader).await.unwrap();
    services.until_replaced(before, TAKEOVER_TIMEOUT).await;
    services.until_leads(standby).await;
    producer.finish().await;
    services.until_exact(&subscriber, "while the old leader is frozen").await;
    assert_only_a_snapshot(&observed(&subscriber.received()));
    // A listener that does not read would make the server's notification queue grow.
    until("the server must end all sessions of a frozen leader", async || {
        let kept = "SELECT FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = 'stats-notifier listener' HAVING count(*) > 1";
        services.client.query(kept, &[]).await.unwrap().is_empty().then_some(())
    })
    .await;

    // Gateways that connect while the leader is frozen get a response when it thaws. It may not
    // know yet that its term has ended.
    let producer = services.produce();
    let url = services.stack.internal_url(leader);
    let mut gateways = Vec::new();
    for _ in 0..20 {
        let mut gateway = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        let secret = internal::SECRET;
        let request = format!(
            "GET /internal/v1/stream HTTP/1.1\r\nhost: notifier\r\nauthorization: Bearer {secret}\r\n\r\n"
        );
        gateway.write_all(request.as_bytes()).await.unwrap();
        gateways.push(gateway);
    }
    frozen.thaw();
    for mut gateway in gateways {
        let mut answer = [0; 12];
        gateway.read_exact(&mut answer).await.unwrap();
        assert_eq!(
            &answer, b"HTTP/1.1 503",
            "a leader must not send the state of a term that has ended"
        );
    }
    until("the old leader must become a standby", async || {
        (role(&url).await.as_deref() == Some("standby")).then_some(())
    })
    .await;
    services.stack.until_ready(leader, DEADLINE).await.unwrap();
    producer.finish().await;
    services.until_exact(&subscriber, "after").await;
    assert_only_a_snapshot(&observed(&subscriber.received()));
    services.leading_backend(Some(before)).await;
    services.until_rolled_up().await;
}

/// A function that waits, without a lock on a table or row, as long as a session of the test
/// [holds](HOLD) it there.
pub(crate) const WAIT: &str = "CREATE FUNCTION wait() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        WHILE NOT pg_try_advisory_xact_lock_shared(77) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN true; END $$;";
pub(crate) const HOLD: &str = "SELECT pg_advisory_lock(77)";
pub(crate) const RELEASE: &str = "SELECT pg_advisory_unlock(77)";

/// SQL that makes a flush wait between its last write and its commit.
fn hold_in_flush() -> String {
    format!(
        "{WAIT} CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM wait(); RETURN NEW; END $$;
        CREATE TRIGGER wait BEFORE UPDATE OF snapshot ON rollup_cursor FOR EACH ROW EXECUTE FUNCTION wait_here()"
    )
}

/// A flush may take long, and other clients' numbers must not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_do_not_wait_for_a_flush() {
    let services = Services::start_with(Replicas::ONE, &hold_in_flush(), &[]).await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    let upkeep = services.upkeep_backend().await;
    services.client.execute(HOLD, &[]).await.unwrap();
    services.post(20).await;
    services.until_backend(upkeep, "wait_event = 'PgSleep'").await;
    let internal = services.stack.internal_url(ServiceKind::StatsNotifier);
    let lag = async || {
        let metrics = internal::get(format!("{internal}/metrics")).await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let mut lines = metrics.lines();
        let lag = lines.find_map(|line| line.strip_prefix("notifier_cursor_lag_transactions "));
        lag.unwrap().parse::<f64>().unwrap()
    };
    let before = lag().await;
    services.post(20).await;
    services.until_exact(&subscriber, "during the flush").await;
    until("the lag must be measured during the flush", async || {
        (lag().await > before).then_some(())
    })
    .await;
    services.until_backend(upkeep, "wait_event = 'PgSleep'").await;
    services.client.execute(RELEASE, &[]).await.unwrap();
    services.until_rolled_up().await;
    assert_eq!(observed(&subscriber.received()), Observed { streams: 1, snapshots: 1, stale: 0 });
}

/// An operator's lock, or that of a backup, holds up the rollups, and not the term.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_on_the_rollups_ends_no_term() {
    let services = Services::start(Replicas::ONE).await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    let backend = services.leading_backend(None).await;
    let upkeep = services.upkeep_backend().await;
    let blocker = services.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE rollup IN SHARE MODE").await.unwrap();
    services.post(20).await;
    // Several times `leader.lock_timeout`.
    let long = "wait_event_type = 'Lock' AND query_start < clock_timestamp() - interval '3 s'";
    services.until_backend(upkeep, long).await;
    services.until_exact(&subscriber, "while the flush waits for the lock").await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    services.until_rolled_up().await;
    assert_eq!(services.leading_backend(None).await, backend);
    let Observed { streams, snapshots, .. } = observed(&subscriber.received());
    assert_eq!((streams, snapshots), (1, 1), "it must be one term");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_frozen_inside_a_flush_commits_nothing() {
    // The server has ended the flush before the standby leads, or it is still in the middle of it.
    for ended in [true, false] {
        let services = Services::start_with(PAIR, &hold_in_flush(), &[]).await;
        let (leader, standby) = services.leader_and_standby().await;
        let subscriber = services.subscribe(ServiceKind::SseGateway).await;
        let backend = services.leading_backend(None).await;
        let upkeep = services.upkeep_backend().await;
        services.client.execute(HOLD, &[]).await.unwrap();
        services.post(20).await;
        services.until_backend(upkeep, "wait_event = 'PgSleep'").await;
        let frozen = services.stack.freeze(leader).await.unwrap();
        if ended {
            services.client.execute(RELEASE, &[]).await.unwrap();
            services.until_backend(upkeep, "state = 'idle in transaction'").await;
        }
        tokio::join!(services.post(20), services.until_replaced(backend, TAKEOVER_TIMEOUT));
        services.until_leads(standby).await;
        services.until_exact(&subscriber, "while the old leader is frozen").await;
        if !ended {
            services.client.execute(RELEASE, &[]).await.unwrap();
        }

        frozen.thaw();
        services.post(20).await;
        services.until_exact(&subscriber, "after").await;
        services.leader_and_standby().await;
        observed(&subscriber.received());
        services.until_rolled_up().await;
    }
}

/// The session of the flush waits for the lock, but it does not hold the lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_frozen_while_its_flush_waits_for_a_lock_is_replaced() {
    let lock = (ServiceKind::StatsNotifier, "NEWCYCLE__LEADER__LOCK_TIMEOUT", NEVER_REACHED);
    let mut services = Services::start_with(PAIR, "", &[lock]).await;
    services.until_ready().await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    services.post(1).await;
    services.until_rolled_up().await;
    let backend = services.leading_backend(None).await;
    let upkeep = services.upkeep_backend().await;
    // On a connection of its own, because pg_stat_activity does not change within a transaction.
    let blocker = services.connect().await;
    blocker
        .batch_execute("BEGIN; SELECT FROM rollup WHERE unit = 'year' FOR UPDATE")
        .await
        .unwrap();
    services.post(20).await;
    services.until_backend(upkeep, "wait_event_type = 'Lock'").await;
    let frozen = services.stack.freeze(leader).await.unwrap();
    services.until_replaced(backend, TAKEOVER_TIMEOUT).await;
    services.until_leads(standby).await;
    services.until_exact(&subscriber, "while the old leader is frozen").await;
    blocker.batch_execute("ROLLBACK").await.unwrap();

    frozen.thaw();
    services.until_exact(&subscriber, "after").await;
    observed(&subscriber.received());
    services.until_rolled_up().await;
}

/// Without a limit, the server would wait until the leader reads the rest of the rows, and the
/// frozen leader would keep the lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_frozen_while_rows_are_sent_to_it_is_replaced() {
    // Only a tick that finds rows waits: once, before the server sends the first row.
    let held_at = format!(
        "{WAIT} ALTER TABLE count_log ENABLE ROW LEVEL SECURITY;
        CREATE POLICY wait ON count_log TO newcycle_notifier
            USING (CASE WHEN delta <> 0 AND current_query() ~ '^\\s*SELECT' THEN (SELECT wait()) ELSE true END)"
    );
    let services = Services::start_with(PAIR, &held_at, &[]).await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    services.post(1).await;
    services.until_rolled_up().await;
    let backend = services.leading_backend(None).await;
    services.client.execute(HOLD, &[]).await.unwrap();
    // More rows than the sockets can buffer. Their sum is zero.
    let many = "INSERT INTO count_log (time, delta, metric) \
         SELECT created_at, sign(n), 'item-creation' \
         FROM items, generate_series(-100000, 100000) AS n WHERE n <> 0";
    services.client.batch_execute(many).await.unwrap();
    services.until_backend(backend, "wait_event = 'PgSleep'").await;
    let frozen = services.stack.freeze(leader).await.unwrap();
    services.client.execute(RELEASE, &[]).await.unwrap();
    services.until_backend(backend, "wait_event = 'ClientWrite'").await;
    services.until_replaced(backend, TAKEOVER_TIMEOUT).await;
    services.until_leads(standby).await;

    frozen.thaw();
    services.until_exact(&subscriber, "after").await;
    services.until_rolled_up().await;
}

/// The server may still be executing the leader's flush.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_at_once() {
    let mut services = start_without_timeouts(&hold_in_flush()).await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    let upkeep = services.upkeep_backend().await;
    services.client.execute(HOLD, &[]).await.unwrap();
    let producer = services.produce();
    services.until_backend(upkeep, "wait_event = 'PgSleep'").await;
    services.stack.kill(leader).await;
    services.until_leads(standby).await;
    services.client.execute(RELEASE, &[]).await.unwrap();
    services.stack.start_one(leader).unwrap();
    services.stack.until_ready(leader, DEADLINE).await.unwrap();
    assert_eq!(services.leader_and_standby().await, (standby, leader));
    producer.finish().await;
    services.until_exact(&subscriber, "after").await;
    assert_only_a_snapshot(&observed(&subscriber.received()));
    services.until_rolled_up().await;
}

/// The end of a stream alone makes no gateway stale, so clients do not notice a handover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_gets_sigterm_hands_over_unnoticed() {
    let mut services = start_without_timeouts("").await;
    let (leader, standby) = services.leader_and_standby().await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    let producer = services.produce();
    services.post(20).await;
    let url = services.stack.internal_url(standby);
    let (ended_well, ()) =
        tokio::join!(services.stack.stop_one(leader, DEADLINE), until_leads(&url));
    assert!(ended_well, "it must stop without an error");
    producer.finish().await;
    services.until_exact(&subscriber, "after").await;
    assert_eq!(observed(&subscriber.received()), Observed { streams: 1, snapshots: 2, stale: 0 });
    services.until_rolled_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_session_is_terminated_counts_nothing_twice() {
    let services = Services::start(PAIR).await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    let end = "SELECT pg_terminate_backend($1)";
    for (snapshots, upkeep) in [(2, false), (3, true)] {
        services.leader_and_standby().await;
        let producer = services.produce();
        let leading = services.leading_backend(None).await;
        let ended = if upkeep { services.upkeep_backend().await } else { leading };
        // A session that is ended while it is opened is opened again, in the same term.
        until("the session must have written", async || {
            let written = "SELECT FROM writes WHERE backend = $1 LIMIT 1";
            services.client.query_opt(written, &[&ended]).await.unwrap()
        })
        .await;
        assert!(services.client.query_one(end, &[&ended]).await.unwrap().get::<_, bool>(0));
        services.leading_backend(Some(leading)).await;
        services.leader_and_standby().await;
        producer.finish().await;
        services.until_exact(&subscriber, "after").await;
        let observed = observed(&subscriber.received());
        assert!(observed.stale < snapshots, "{observed:?}");
        assert_eq!((observed.streams, observed.snapshots), (1, snapshots), "{observed:?}");
    }
    services.until_rolled_up().await;
}

/// Any role that may connect can take the lock, and end the counting for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_says_that_another_program_has_the_lead() {
    let mut services = Services::start(Replicas::ONE).await;
    let notifier = ServiceKind::StatsNotifier;
    let intruder = services.connect().await;
    services.stack.stop_one(notifier, DEADLINE).await;
    let take = "SELECT pg_advisory_lock_shared($1, $2), pg_backend_pid()";
    let process: i32 =
        intruder.query_one(take, &[&LEAD.class, &LEAD.purpose]).await.unwrap().get(1);
    // No other lock of this system may stop the counting.
    let others = services.connect().await;
    let numbers = "SELECT pg_advisory_lock($1, number) FROM generate_series(0, 20) AS number \
         WHERE number <> $2";
    others.query(numbers, &[&LEAD.class, &LEAD.purpose]).await.unwrap();
    services.stack.start_one(notifier).unwrap();
    let internal = services.stack.internal_url(notifier);
    let read = async |path: &str| {
        let answer = internal::get(format!("{internal}{path}")).await.ok()?;
        (answer.status() == 200).then_some(answer.text().await.ok()?)
    };
    let problem = async || {
        let ready: Value = serde_json::from_str(&read("/readyz").await?).ok()?;
        Some(ready["detail"]["lead_problem"].as_str().map(str::to_owned))
    };
    let said = until("the problem must be named", async || problem().await.flatten()).await;
    assert!(said.contains("role \"postgres\""), "{said}");
    assert!(said.contains(&format!("pg_terminate_backend({process})")), "{said}");
    let metrics = read("/metrics").await.unwrap();
    assert!(metrics.contains("\nnotifier_lead_blocked 1\n"), "{metrics}");
    drop(intruder);
    services.leading_backend(None).await;
    until_leads(&internal).await;
    assert_eq!(problem().await, Some(None));
    let metrics = read("/metrics").await.unwrap();
    assert!(metrics.contains("\nnotifier_lead_blocked 0\n"), "{metrics}");
    services.post(20).await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    services.until_exact(&subscriber, "while others hold all other locks").await;
    services.until_rolled_up().await;
    drop(others);
}
