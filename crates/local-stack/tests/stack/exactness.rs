//! Exact at every version, not only at rest; and the checks that say so do fail where they should.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use domain::{Statistics, Topic, Version};
use local_stack::test_database::TestDatabase;
use statistics_stream::{Hub, HubSettings};
use stats_notifier::leader::Term;
use stats_notifier::snapshot::Snapshot;
use stats_notifier::startup::Substitutes;
use stats_notifier::store::{Statements, Store};
use stats_notifier::verify::{Verifier, Way};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::checker::{Shown, begin_audit, violations};
use crate::subscriber::Subscriber;
use crate::writers;

const DEADLINE: Duration = Duration::from_secs(30);

/// How long to write in order to have done everything many times.
const LONG: Duration = Duration::from_secs(6);

/// All services in this process, and the snapshots of all versions published.
struct Services {
    notifier: String,
    gateway: String,
    ingest: String,
    recorded: Arc<Mutex<Vec<(Version, Snapshot)>>>,
    _stop: DropGuard,
}

impl Services {
    fn start(database: &TestDatabase, statements: Statements) -> Self {
        let stop = CancellationToken::new();
        let (recorder, mut records) = mpsc::channel(1_000);
        let mut settings = stats_notifier::settings::Settings::load().unwrap();
        settings.database = database.notifier();
        settings.internal.port = 0;
        // The checks expect all units to count what happened at any time.
        (settings.retention.second_days, settings.retention.minute_days) = (0, 0);
        let substitutes = Substitutes { statements, recorder: Some(recorder) };
        let notifier =
            stats_notifier::startup::Application::build_with(settings, stop.clone(), substitutes).unwrap();
        let notifier_url = format!("http://127.0.0.1:{}", notifier.port());
        let mut settings = sse_gateway::settings::Settings::load().unwrap();
        settings.http.port = 0;
        settings.internal.port = 0;
        settings.upstream.addresses.clone_from(&notifier_url);
        let gateway = sse_gateway::startup::Application::build(&settings, stop.clone()).unwrap();
        let gateway_url = format!("http://127.0.0.1:{}", gateway.port());
        let mut settings = ingest_api::settings::Settings::load().unwrap();
        settings.database = database.ingest();
        settings.http.port = 0;
        settings.internal.port = 0;
        let ingest = ingest_api::startup::Application::build(
            settings,
            ingest_api::clock::Clock::system(),
            stop.clone(),
        )
        .unwrap();
        let ingest_url = format!("http://127.0.0.1:{}", ingest.port());
        tokio::spawn(ingest.run_until_stopped());
        tokio::spawn(notifier.run_until_stopped());
        tokio::spawn(gateway.run_until_stopped());
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&recorded);
        tokio::spawn(async move {
            while let Some(record) = records.recv().await {
                list.lock().unwrap().push(record);
            }
        });
        Self {
            notifier: notifier_url,
            gateway: gateway_url,
            ingest: ingest_url,
            recorded,
            _stop: stop.drop_guard(),
        }
    }

    /// A subscriber of the gateway.
    fn subscribe(&self, topics: &[&str]) -> Subscriber {
        let query: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
        let topics = topics.iter().map(|topic| topic.parse().unwrap()).collect();
        Subscriber::follow(format!("{}/statistics?{}", self.gateway, query.join("&")), topics)
    }
}

/// Writes while subscribers follow, until all of them have the last version. Returns what is wrong.
async fn run(statements: Statements, time: Duration) -> (Vec<String>, Vec<Shown>) {
    let database = TestDatabase::create().await;
    let client = database.connect().await;
    begin_audit(&client).await;
    let services = Services::start(&database, statements);
    let subscribers = [
        Subscriber::follow(format!("{}/internal/v1/stream", services.notifier), Topic::all().collect()),
        services.subscribe(&[
            "item-creation/second",
            "item-creation/minute",
            "item-creation/hour",
            "item-creation/day",
        ]),
        services.subscribe(&["transfers/millisecond", "transfers/week", "transfers/month", "transfers/year"]),
        services.subscribe(&[
            "transfers/second",
            "transfers/minute",
            "item-creation/quarter",
            "item-creation/year",
        ]),
    ];
    let started = Instant::now();
    while subscribers.iter().any(|subscriber| subscriber.version().is_none()) {
        assert!(started.elapsed() < DEADLINE, "every subscriber must get a first state");
        tokio::task::yield_now().await;
    }
    let succeeded = writers::write(&database, &services.ingest, time).await;
    if time >= LONG {
        for kind in writers::KINDS {
            assert!(succeeded.contains(kind), "no {kind} has succeeded");
        }
    }
    // One last change of every topic, so that every subscriber gets the version that has it.
    client
        .batch_execute(
            "UPDATE items SET created_at = '2025-06-01Z'; \
             INSERT INTO transfers SELECT gen_random_uuid(), '2025-06-01Z', (SELECT id FROM users), id FROM items LIMIT 1",
        )
        .await
        .unwrap();
    let everything = "SELECT (SELECT count(*) FROM items)";
    let items: i64 = client.query_one(everything, &[]).await.unwrap().get(0);
    let day: domain::BucketTime = "2025-06-01T00:00:00Z".parse().unwrap();
    let settled = |subscriber: &Subscriber| {
        let last = services.recorded.lock().unwrap().last().map(|(version, _)| *version);
        last == subscriber.version()
    };
    let started = Instant::now();
    let counted = |shown: &[Shown]| {
        let window =
            shown.last()?.topics.iter().find(|part| part.topic.to_string() == "item-creation/day")?;
        Some(window.buckets.iter().find(|bucket| bucket.time == day)?.count)
    };
    // With a planted error the last count may never come: then the deadline is short, for much is wrong already.
    while counted(&subscribers[0].shown()) != Some(items) || !subscribers.iter().all(settled) {
        if started.elapsed() > Duration::from_secs(5) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let shown: Vec<Shown> = subscribers.iter().flat_map(Subscriber::shown).collect();
    let recorded = services.recorded.lock().unwrap().clone();
    let mut wrong = violations(&client, &recorded, shown.clone()).await;
    if counted(&subscribers[0].shown()) != Some(items) {
        wrong.push(format!("the last state does not count all {items} items"));
    }
    // What is stored is as right as what was shown.
    let verifier = Verifier::connect(&database.notifier()).await.unwrap();
    let verified = verifier.verify(Way::OneSnapshot, &mut |_| ()).await.unwrap();
    wrong.extend(verified.first_mismatches.iter().map(|mismatch| format!("{mismatch:?}")));
    (wrong, shown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shown_version_is_one_snapshot() {
    let (wrong, shown) = run(Statements::default(), LONG).await;
    assert!(wrong.is_empty(), "{} wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    let versions: std::collections::HashSet<_> = shown.iter().map(|state| state.version).collect();
    assert!(versions.len() > 20, "too few versions to say anything: {}", versions.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgetting_transactions_in_progress_is_found() {
    let mut statements = Statements::default();
    let half = statements.tick.rfind("UNION ALL").unwrap();
    statements.tick.truncate(half);
    let (wrong, _) = run(statements, Duration::from_secs(3)).await;
    assert!(!wrong.is_empty(), "the checks must find that rows were never counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folding_a_row_twice_is_found() {
    let mut statements = Statements::default();
    statements.tick = statements.tick.replace(">= pg_snapshot_xmax", ">= pg_snapshot_xmin");
    let (wrong, _) = run(statements, Duration::from_secs(3)).await;
    assert!(!wrong.is_empty(), "the checks must find that rows were counted twice");
}

/// A leader that was deposed without noticing goes on with its whole round, while its successor leads.
async fn deposed(of_the_old: Statements) -> Vec<String> {
    let database = TestDatabase::create().await;
    let client = database.connect().await;
    begin_audit(&client).await;
    let mut settings = stats_notifier::settings::Settings::load().unwrap();
    settings.database = database.notifier();
    // Neither session is to be lost while the other works.
    settings.leader.session_timeout_milliseconds = std::num::NonZeroU64::new(60_000).unwrap();
    let (recorder, mut records) = mpsc::channel(1_000);
    let old_store = Store::connect(&settings.database, &settings.leader, of_the_old).await.unwrap();
    let mut old = Term::begin(&old_store, Hub::new(HubSettings::default()), &settings, None).await.unwrap();
    let store = Store::connect(&settings.database, &settings.leader, Statements::default()).await.unwrap();
    let hub = Hub::new(HubSettings::default());
    let mut new = Term::begin(&store, Arc::clone(&hub), &settings, Some(recorder)).await.unwrap();
    let base_item = Uuid::now_v7();
    let insert = format!("INSERT INTO items VALUES (gen_random_uuid(), '{base_item}', now())");
    client
        .batch_execute(&format!("INSERT INTO base_items VALUES ('{base_item}', ''); {insert}"))
        .await
        .unwrap();
    let logged =
        async || client.query_one("SELECT count(*) FROM count_log", &[]).await.unwrap().get::<_, i64>(0);
    let started = Instant::now();
    // A transaction of another test may keep the row from being purged for a while: then it tries again.
    while logged().await > 0 && started.elapsed() < DEADLINE {
        old.tick(&old_store).await.unwrap();
        if old.flush(&old_store).await.is_err() || old.purge(&old_store, 100).await.is_err() {
            break;
        }
    }
    client.batch_execute(&insert).await.unwrap();
    new.tick(&store).await.unwrap();
    let state = |statistics: &Statistics| Shown {
        version: statistics.version(),
        topics: Topic::all().map(|topic| statistics.snapshot(topic, usize::MAX)).collect(),
    };
    let shown = hub.read(state).unwrap();
    let mut recorded = Vec::new();
    while let Ok(record) = records.try_recv() {
        recorded.push(record);
    }
    violations(&client, &recorded, vec![shown]).await
}

#[tokio::test]
async fn a_deposed_leader_takes_nothing_from_its_successor() {
    let wrong = deposed(Statements::default()).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn skipping_the_check_of_the_term_is_found() {
    let mut statements = Statements::default();
    statements.lock_cursor = statements.lock_cursor.replace("term = $1", "$1::bigint IS NOT NULL");
    assert!(!deposed(statements).await.is_empty(), "the checks must find that a row was purged uncounted");
}
