//! Settings and sessions for the tests, producers in plain SQL, and the counts to expect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{BucketTime, Metric, TimeUnit, Topic};
use local_stack::test_database::TestDatabase;
use statistics_stream::{Hub, HubSettings};
use stats_notifier::settings::Settings;
use stats_notifier::store::{Statements, Store};
use stats_notifier::term::Term;
use tokio_postgres::Client;
use uuid::Uuid;

/// The time limit of every wait for a condition.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Counts by topic and bucket, without zeros.
pub(crate) type Counts = BTreeMap<(usize, BucketTime), i64>;

/// The settings of a stats-notifier for this database, on a free port.
pub(crate) fn settings(database: &TestDatabase) -> Settings {
    let mut settings = Settings::load().unwrap();
    settings.database = database.notifier();
    settings.internal.port = 0;
    // No retention, so that all units count events of any time. Tests of retention set it.
    (settings.retention.second_days, settings.retention.minute_days) = (0, 0);
    settings
}

/// Takes the lead and begins a term.
pub(crate) async fn lead(settings: &Settings, statements: Statements) -> (Store, Term, Arc<Hub>) {
    let store = Store::connect(&settings.database, &settings.leader, statements).await.unwrap();
    assert!(store.try_lead().await.unwrap(), "no other session may lead yet");
    let hub = Hub::new(HubSettings::default());
    let term = Term::begin(&store, Arc::clone(&hub), settings).await.unwrap();
    (store, term, hub)
}

/// Takes the lead as soon as the server has noticed that the session of the old leader is gone.
pub(crate) async fn lead_again(settings: &Settings) -> Store {
    let store =
        Store::connect(&settings.database, &settings.leader, Statements::default()).await.unwrap();
    let lead = async { while !store.try_lead().await.unwrap() {} };
    tokio::time::timeout(DEADLINE, lead).await.expect("the lead must become free");
    store
}

/// The rows that the events of a test refer to.
pub(crate) struct Parents {
    pub(crate) base_item: Uuid,
    pub(crate) user: Uuid,
    /// Created long before the events of the test.
    pub(crate) item: Uuid,
}

/// Inserts a base item, a user and an item.
pub(crate) async fn insert_parents(client: &Client) -> Parents {
    let [base_item, user, item] = [(); 3].map(|()| Uuid::now_v7());
    client.execute("INSERT INTO base_items VALUES ($1, 'a thing')", &[&base_item]).await.unwrap();
    client.execute("INSERT INTO users VALUES ($1)", &[&user]).await.unwrap();
    let old = "INSERT INTO items VALUES ($1, $2, '1999-12-31 23:59:59.999+00')";
    client.execute(old, &[&item, &base_item]).await.unwrap();
    Parents { base_item, user, item }
}

/// Counts the events without the SQL of the product.
pub(crate) async fn counted_from_events(client: &Client) -> Counts {
    let events = "SELECT 'item-creation', created_at FROM items \
                  UNION ALL SELECT 'transfers', \"timestamp\" FROM transfers";
    let mut counts = Counts::new();
    for row in client.query(events, &[]).await.unwrap() {
        let metric: Metric = row.get::<_, &str>(0).parse().unwrap();
        let time: BucketTime = row.get::<_, time::OffsetDateTime>(1).try_into().unwrap();
        for unit in TimeUnit::ALL {
            *counts.entry((Topic::new(metric, unit).index(), unit.truncate(time))).or_insert(0) +=
                1;
        }
    }
    counts
}

/// The counts that the hub shows. The windows are large enough for all events of these tests.
pub(crate) fn shown(hub: &Hub) -> Counts {
    let all = |statistics: &domain::Statistics| {
        let topics = Topic::all().map(|topic| statistics.snapshot(topic, usize::MAX));
        let bucket = |topic: Topic| {
            move |bucket: domain::Bucket| ((topic.index(), bucket.time), bucket.count)
        };
        let counts = topics.flat_map(|part| part.buckets.into_iter().map(bucket(part.topic)));
        counts.filter(|(_, count)| *count != 0).collect()
    };
    hub.with_state(all).expect("the term has begun")
}

/// The counts in the rollups: all units but the millisecond.
pub(crate) async fn rolled_up(client: &Client) -> Counts {
    let rollup = "SELECT metric, unit, bucket, count FROM rollup WHERE count <> 0";
    let mut counts = Counts::new();
    for row in client.query(rollup, &[]).await.unwrap() {
        let topic: Topic =
            format!("{}/{}", row.get::<_, &str>(0), row.get::<_, &str>(1)).parse().unwrap();
        let time: BucketTime = row.get::<_, time::OffsetDateTime>(2).try_into().unwrap();
        counts.insert((topic.index(), time), row.get(3));
    }
    counts
}

/// `counts` without the milliseconds.
pub(crate) fn coarser(counts: &Counts) -> Counts {
    let milliseconds = [Metric::ItemCreation, Metric::Transfers]
        .map(|metric| Topic::new(metric, TimeUnit::Millisecond).index());
    let kept = counts.iter().filter(|((topic, _), _)| !milliseconds.contains(topic));
    kept.map(|(&key, &count)| (key, count)).collect()
}
