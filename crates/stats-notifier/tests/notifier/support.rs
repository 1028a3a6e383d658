//! Databases and leaders for the tests, producers in plain SQL, and the counts to expect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{BucketTime, Metric, Statistics, TimeUnit, Topic, TopicFrame};
use local_stack::test_database::TestDatabase;
use service_kit::metrics::Metrics;
use service_kit::settings::ProgramSettings as _;
use statistics_stream::{Hub, HubSettings};
use stats_notifier::leader::{self, Candidate, Role};
use stats_notifier::metrics::LeaderMetrics;
use stats_notifier::settings::Settings;
use stats_notifier::store::{Statements, Store, StoreError};
use stats_notifier::term::Term;
use stats_notifier::upkeep::Upkeep;
use stats_notifier::verify::{Verifier, VerifyMode, VerifyReport};
use tokio::sync::watch;
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The time limit of every wait for a condition.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Counts by topic and bucket, without zeros.
pub(crate) type Counts = BTreeMap<(usize, BucketTime), i64>;

/// A database with one item, and the settings of a stats-notifier for it.
pub(crate) struct Fixture {
    pub(crate) database: TestDatabase,
    /// A superuser, who writes events as producers do.
    pub(crate) producer: Client,
    pub(crate) settings: Settings,
    pub(crate) base_item: Uuid,
    pub(crate) user: Uuid,
    /// Created long before the events of the test.
    pub(crate) item: Uuid,
}

impl Fixture {
    pub(crate) async fn create() -> Self {
        let database = TestDatabase::create().await;
        let producer = database.connect().await;
        let mut settings = Settings::load().unwrap();
        settings.database = database.notifier();
        settings.internal.port = 0;
        // No retention, so that all units count events of any time. Tests of retention set it.
        (settings.retention.second_days, settings.retention.minute_days) = (0, 0);
        let [base_item, user, item] = [(); 3].map(|()| Uuid::now_v7());
        let fixture = Self { database, producer, settings, base_item, user, item };
        let parents = format!(
            "INSERT INTO base_items VALUES ('{base_item}', 'a thing'); \
             INSERT INTO users VALUES ('{user}'); \
             INSERT INTO items VALUES ('{item}', '{base_item}', '1999-12-31 23:59:59.999+00')"
        );
        fixture.execute(&parents).await;
        fixture
    }

    /// Runs statements of the producer.
    pub(crate) async fn execute(&self, sql: &str) {
        self.producer.batch_execute(sql).await.unwrap();
    }

    /// The statement that inserts an item of now.
    pub(crate) fn insert_item(&self) -> String {
        format!("INSERT INTO items VALUES (gen_random_uuid(), '{}', now())", self.base_item)
    }

    /// The statement that inserts an item for each `n`, at a time that is an expression of `n`.
    pub(crate) fn insert_items(&self, time: &str, numbers: &str) -> String {
        format!(
            "INSERT INTO items SELECT gen_random_uuid(), '{}', {time} FROM generate_series({numbers}) AS n",
            self.base_item
        )
    }

    /// The statement that inserts a transfer for each `n`, at a time that is an expression of `n`.
    pub(crate) fn insert_transfers(&self, time: &str, numbers: &str) -> String {
        let Self { user, item, .. } = self;
        format!(
            "INSERT INTO transfers SELECT gen_random_uuid(), {time}, '{user}', '{item}' FROM generate_series({numbers}) AS n"
        )
    }

    /// Connects as a leader does.
    pub(crate) async fn connect(&self) -> Store {
        let Settings { database, leader, .. } = &self.settings;
        Store::connect(database, leader, Statements::default()).await.unwrap()
    }

    /// Takes the lead and begins a term.
    pub(crate) async fn lead(&self) -> Leader {
        let store = self.connect().await;
        assert!(store.try_lead().await.unwrap(), "no other session may lead yet");
        Leader::begin(store, &self.settings).await
    }

    /// Takes the lead as soon as the server has noticed that the session of the old leader is gone.
    pub(crate) async fn lead_again(&self) -> Leader {
        let store = self.connect().await;
        let lead = async { while !store.try_lead().await.unwrap() {} };
        tokio::time::timeout(DEADLINE, lead).await.expect("the lead must become free");
        Leader::begin(store, &self.settings).await
    }

    /// Compares the counts with the events.
    pub(crate) async fn verify(&self, mode: VerifyMode) -> Result<VerifyReport, StoreError> {
        let Settings { database, leader, .. } = &self.settings;
        let verifier = Verifier::connect(database, leader.address_check_interval.get()).await?;
        verifier.verify(mode, &mut |_| ()).await
    }

    pub(crate) async fn log_rows(&self) -> i64 {
        self.producer.query_one("SELECT count(*) FROM count_log", &[]).await.unwrap().get(0)
    }

    /// Counts the events without the SQL of the product.
    pub(crate) async fn counted_from_events(&self) -> Counts {
        let events = "SELECT 'item-creation', created_at FROM items \
                      UNION ALL SELECT 'transfers', \"timestamp\" FROM transfers";
        let mut counts = Counts::new();
        for row in self.producer.query(events, &[]).await.unwrap() {
            let metric: Metric = row.get::<_, &str>(0).parse().unwrap();
            let time: BucketTime = row.get::<_, time::OffsetDateTime>(1).try_into().unwrap();
            for unit in TimeUnit::ALL {
                let bucket = (Topic::new(metric, unit).index(), unit.truncate(time));
                *counts.entry(bucket).or_insert(0) += 1;
            }
        }
        counts
    }

    /// The counts in the rollups: all units but the millisecond.
    pub(crate) async fn rolled_up(&self) -> Counts {
        let rollup = "SELECT metric || '/' || unit, bucket, count FROM rollup WHERE count <> 0";
        let mut counts = Counts::new();
        for row in self.producer.query(rollup, &[]).await.unwrap() {
            let topic: Topic = row.get::<_, &str>(0).parse().unwrap();
            let time: BucketTime = row.get::<_, time::OffsetDateTime>(1).try_into().unwrap();
            counts.insert((topic.index(), time), row.get(2));
        }
        counts
    }
}

/// A leader that a test drives step by step.
pub(crate) struct Leader {
    pub(crate) term: Term,
    pub(crate) upkeep: Upkeep,
    /// The session that holds the lead.
    pub(crate) store: Store,
    /// The session of the upkeep.
    pub(crate) for_upkeep: Store,
    pub(crate) hub: Arc<Hub>,
}

impl Leader {
    pub(crate) async fn begin(store: Store, settings: &Settings) -> Self {
        let hub = Hub::new(HubSettings::default());
        let (term, upkeep) =
            Term::begin(&store, Arc::clone(&hub), &settings.retention).await.unwrap();
        let Settings { database, leader, .. } = settings;
        let for_upkeep = store.connect_for_upkeep(database, leader).await.unwrap();
        Self { term, upkeep, store, for_upkeep, hub }
    }

    /// Returns the number of log rows.
    pub(crate) async fn tick(&mut self) -> u64 {
        self.term.tick(&self.store).await.unwrap()
    }

    pub(crate) async fn flush(&mut self) {
        self.upkeep.flush(&self.for_upkeep).await.unwrap();
    }

    /// Purges what has been counted, in batches of `limit` rows.
    pub(crate) async fn purge(&mut self, limit: u32) {
        while self.upkeep.purge(&self.for_upkeep, limit).await.unwrap() {}
    }

    /// Ticks, flushes and purges until the log is empty. A transaction of another test may keep the
    /// last rows for a while, because snapshots are of the whole cluster.
    pub(crate) async fn until_purged(&mut self, fixture: &Fixture) {
        let purge = async {
            while fixture.log_rows().await > 0 {
                self.tick().await;
                self.flush().await;
                self.upkeep.purge(&self.for_upkeep, 20).await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, purge)
            .await
            .expect("rows that ticks and flushes have counted must be purged");
    }

    /// The window of a topic.
    pub(crate) fn window(&self, topic: &str) -> TopicFrame {
        let topic = topic.parse().unwrap();
        self.hub.with_state(|statistics| statistics.snapshot(topic, usize::MAX)).unwrap()
    }

    /// The counts that the hub shows. The windows are large enough for all events of these tests.
    pub(crate) fn shown(&self) -> Counts {
        let mut counts = Counts::new();
        for topic in Topic::all() {
            let buckets = self.window(&topic.to_string()).buckets.into_iter();
            let buckets = buckets.filter(|bucket| bucket.count != 0);
            counts.extend(buckets.map(|bucket| ((topic.index(), bucket.time), bucket.count)));
        }
        counts
    }
}

/// A stats-notifier that leads, until the end of the test.
pub(crate) struct Running {
    hub: Arc<Hub>,
    _stop: tokio_util::sync::DropGuard,
}

pub(crate) async fn run(settings: Settings) -> Running {
    let (role, mut roles) = watch::channel(Role::default());
    let new_hub = Box::new(|| Hub::new(HubSettings::default()));
    let metrics = LeaderMetrics::register(&Metrics::new().unwrap());
    let statements = Statements::default();
    let candidate = Candidate { settings, new_hub, role, metrics, statements };
    let stop = CancellationToken::new();
    tokio::spawn(leader::run(candidate, stop.clone()));
    let leads = roles.wait_for(|role| matches!(role, Role::Leader(_)));
    let led =
        tokio::time::timeout(DEADLINE, leads).await.expect("it must lead in time").unwrap().clone();
    let Role::Leader(hub) = led else { unreachable!("the role was waited for") };
    Running { hub, _stop: stop.drop_guard() }
}

impl Running {
    /// The number of created items that is shown now.
    pub(crate) fn items(&self) -> i64 {
        let topic: Topic = "item-creation/year".parse().unwrap();
        let sum = |statistics: &Statistics| {
            statistics.snapshot(topic, usize::MAX).buckets.iter().map(|bucket| bucket.count).sum()
        };
        self.hub.with_state(sum).unwrap()
    }
}

/// `counts` without the milliseconds.
pub(crate) fn coarser(counts: &Counts) -> Counts {
    let milliseconds = Metric::ALL.map(|metric| Topic::new(metric, TimeUnit::Millisecond).index());
    let kept = counts.iter().filter(|((topic, _), _)| !milliseconds.contains(topic));
    kept.map(|(&key, &count)| (key, count)).collect()
}

/// Runs a statement in a transaction that is rolled back, and returns its plan, with what each node
/// of it did.
pub(crate) async fn plan(client: &Client, statement: &str) -> serde_json::Value {
    let explain = format!("BEGIN; EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}; ROLLBACK");
    let explained = client.simple_query(&explain).await.unwrap();
    let row = explained.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let mut plans: serde_json::Value = serde_json::from_str(row.unwrap()).unwrap();
    plans[0]["Plan"].take()
}
