//! Replicas of the services, a producer, and the counts that its events must have.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use domain::{Bucket, FrameKind, Metric, Statistics, TimeUnit, Topic, TopicFrame};
use local_stack::internal;
use local_stack::stack::{Instance, Replicas, ServiceKind, Stack, Variable};
use local_stack::test_database::{TestDatabase, client};
use postgres_kit::database::DatabaseSettings;
use postgres_kit::locks::{FIND_HOLDERS, LEAD};
use serde_json::{Value, json};
use statistics_stream::UpstreamStatus;
use tokio::time::MissedTickBehavior;
use tokio_postgres::{Client, Row};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::own_postgres::connect;
use crate::subscriber::{Received, Subscriber};
use crate::support::{DEADLINE, settings, until, until_ready, within};

/// How long a stats-notifier may take to report its role. A frozen one does not respond.
const ROLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Services on a database that no other test uses.
pub(crate) struct Services {
    pub(crate) stack: Stack,
    /// A superuser's connection.
    pub(crate) client: Client,
    pub(crate) parents: Parents,
    /// How a superuser connects.
    pub(crate) database: DatabaseSettings,
    /// Dropped after the services. `None` if the database is not one of the test cluster.
    _database: Option<TestDatabase>,
}

/// The rows that events refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parents {
    pub(crate) base_item: Uuid,
    pub(crate) user: Uuid,
}

impl Services {
    /// Starts services, and waits until all are ready.
    pub(crate) async fn start(wanted: Replicas) -> Self {
        let mut services = Self::start_with(wanted, "", &[]).await;
        services.until_ready().await;
        services
    }

    /// Starts services on a database on which a superuser has run `before`. Waits only for
    /// ingest-api.
    pub(crate) async fn start_with(
        wanted: Replicas,
        before: &str,
        variables: &[Variable<'_>],
    ) -> Self {
        let database = TestDatabase::create().await;
        let services = Self::start_on(database.superuser(), wanted, before, variables).await;
        Self { _database: Some(database), ..services }
    }

    /// [`Services::start_with`] on a migrated database of any cluster that has the roles of the
    /// test cluster.
    pub(crate) async fn start_on(
        database: DatabaseSettings,
        wanted: Replicas,
        before: &str,
        variables: &[Variable<'_>],
    ) -> Self {
        // Notes which term and session updated the cursor of the rollups, in the order of the
        // commits.
        let note = format!(
            "INSERT INTO base_items VALUES (gen_random_uuid(), 'a thing');
            INSERT INTO users VALUES (gen_random_uuid());
            CREATE TABLE writes (place bigserial, term bigint, backend integer);
            CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                INSERT INTO public.writes (term, backend) VALUES (NEW.term, pg_backend_pid()); RETURN NULL; END $$;
            CREATE TRIGGER note_write AFTER UPDATE ON rollup_cursor FOR EACH ROW EXECUTE FUNCTION note_write(); {before}"
        );
        // The same session runs on, because `before` may have taken a lock.
        let client = connect(&database).await;
        client.batch_execute(&note).await.unwrap();
        Self::go_on(client, database, wanted, variables).await
    }

    /// Starts services on a database that already has a base item and a user, such as a restored
    /// one.
    pub(crate) async fn go_on(
        client: Client,
        database: DatabaseSettings,
        wanted: Replicas,
        variables: &[Variable<'_>],
    ) -> Self {
        let find = "SELECT base_items.id, users.id FROM base_items, users ORDER BY 1, 2 LIMIT 1";
        let row = client.query_one(find, &[]).await.unwrap();
        let parents = Parents { base_item: row.get(0), user: row.get(1) };
        let mut settings = settings(database.clone(), wanted);
        settings.set(variables);
        let stack = Stack::start(settings, Arc::new(|_, _: &str| ())).unwrap();
        let mut services = Self { stack, client, parents, database, _database: None };
        for number in 1..=wanted.ingest_api {
            let ingest = ServiceKind::IngestApi.replica(number);
            services.stack.until_ready(ingest, DEADLINE).await.unwrap();
        }
        services
    }

    /// Waits until all services are ready.
    pub(crate) async fn until_ready(&mut self) {
        until_ready(&mut self.stack).await;
    }

    /// Opens another superuser's connection.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.database).await
    }

    /// Waits until one stats-notifier leads and the other waits. Returns the leader first.
    pub(crate) async fn leader_and_standby(&self) -> (Instance, Instance) {
        let both = [1, 2].map(|number| ServiceKind::StatsNotifier.replica(number));
        let [first, second] = both;
        until("one must lead and the other wait", async || {
            let role = async |notifier| role(&self.stack.internal_url(notifier)).await;
            match (role(first).await?.as_str(), role(second).await?.as_str()) {
                ("leader", "standby") => Some((first, second)),
                ("standby", "leader") => Some((second, first)),
                _ => None,
            }
        })
        .await
    }

    /// Waits until a session other than `former` leads, and returns its backend.
    pub(crate) async fn leading_backend(&self, former: Option<i32>) -> i32 {
        until("another session must lead", async || {
            let holder =
                self.client.query_opt(FIND_HOLDERS, &[&LEAD.class, &LEAD.purpose]).await.unwrap();
            let holder = holder.map(|row| row.get(0));
            holder.filter(|_| holder != former)
        })
        .await
    }

    /// Waits until a leader has a session for its upkeep. Returns the process id of its backend.
    pub(crate) async fn upkeep_backend(&self) -> i32 {
        let find = "SELECT pid FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'stats-notifier upkeep'";
        until("a leader must have a session for its upkeep", async || {
            Some(self.client.query_opt(find, &[]).await.unwrap()?.get(0))
        })
        .await
    }

    /// Waits until a session other than `former` leads, for at most `limit` [in steps](within).
    pub(crate) async fn until_replaced(&self, former: i32, limit: Duration) {
        let replaced = within(limit, self.leading_backend(Some(former))).await;
        assert!(replaced.is_some(), "another session must lead within {limit:?}");
    }

    /// Waits until a backend is in a state, such as `wait_event = 'ClientRead'`.
    pub(crate) async fn until_backend(&self, backend: i32, state: &str) {
        let find = format!("SELECT FROM pg_stat_activity WHERE pid = {backend} AND {state}");
        until(&format!("a backend must be in the state {state}"), async || {
            self.client.query_opt(&find, &[]).await.unwrap()
        })
        .await;
    }

    /// Waits until a stats-notifier leads.
    pub(crate) async fn until_leads(&self, notifier: Instance) {
        until_leads(&self.stack.internal_url(notifier)).await;
    }

    /// Starts a subscriber of all topics, and waits for its first state.
    pub(crate) async fn subscribe(&self, gateway: impl Into<Instance>) -> Subscriber {
        let subscriber = self.subscribe_from(None, gateway);
        until("a subscriber must receive a first state", async || subscriber.version()).await;
        subscriber
    }

    /// Starts a subscriber of all topics that already has a state.
    pub(crate) fn subscribe_from(
        &self,
        state: Option<Statistics>,
        gateway: impl Into<Instance>,
    ) -> Subscriber {
        self.subscribe_to(Topic::all().collect(), state, gateway)
    }

    /// Starts a subscriber of some topics. The fewer they are, the less it keeps of each state.
    pub(crate) fn subscribe_to(
        &self,
        topics: Vec<Topic>,
        state: Option<Statistics>,
        gateway: impl Into<Instance>,
    ) -> Subscriber {
        let query: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
        let url = format!("{}/statistics?{}", self.stack.url(gateway), query.join("&"));
        Subscriber::follow(state, url, topics)
    }

    /// Posts this number of items, and as many transfers.
    pub(crate) async fn post(&self, events: usize) {
        post(&self.stack.url(ServiceKind::IngestApi), self.parents, events).await;
    }

    /// Posts events until [`Producer::finish`].
    pub(crate) fn produce(&self) -> Producer {
        let url = self.stack.url(ServiceKind::IngestApi);
        let parents = self.parents;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !stopped.is_cancelled() {
                pace.tick().await;
                post(&url, parents, 1).await;
            }
        });
        Producer { stop, task }
    }

    /// Waits until a subscriber shows exactly the counts of the events. Nothing may be written
    /// meanwhile.
    pub(crate) async fn until_exact(&self, subscriber: &Subscriber, when: &str) {
        let expected = self.windows().await;
        until(&format!("every bucket must be exact {when}"), async || {
            let state = subscriber.state()?;
            expected
                .iter()
                .all(|window| state.snapshot(window.topic, usize::MAX) == *window)
                .then_some(())
        })
        .await;
    }

    /// The windows that every topic must show, counted from the events by SQL.
    async fn windows(&self) -> Vec<TopicFrame> {
        let mut windows = Vec::new();
        for topic in Topic::all() {
            let window = topic.unit.window();
            let (table, time) = match topic.metric {
                Metric::ItemCreation => ("items", "created_at"),
                Metric::Transfers => ("transfers", "\"timestamp\""),
            };
            let newest = format!(
                "SELECT date_trunc('{}', {time}, 'UTC') AS bucket, count(*) FROM {table} \
                 GROUP BY 1 ORDER BY 1 DESC LIMIT {window}",
                topic.unit
            );
            let rows = self.client.query(&newest, &[]).await.unwrap();
            let bucket = |row: &Row| {
                let time = row.get::<_, time::OffsetDateTime>(0).try_into().unwrap();
                Bucket { time, count: row.get(1) }
            };
            let buckets = rows.iter().rev().map(bucket).collect();
            windows.push(TopicFrame { topic, window, buckets });
        }
        windows
    }

    /// Waits until the rollups equal the events. Checks that no session but the leader's two wrote
    /// a term, and that no session wrote an earlier term after a later one.
    pub(crate) async fn until_rolled_up(&self) {
        let units = TimeUnit::ALL.map(TimeUnit::as_str);
        let units: Vec<&str> = units.into_iter().filter(|unit| *unit != "millisecond").collect();
        let wrong = format!(
            "SELECT FROM ({RECOUNT}) AS counted FULL JOIN rollup USING (metric, unit, bucket) \
             WHERE counted.count IS DISTINCT FROM rollup.count"
        );
        until("the rollups must equal the events", async || {
            self.client.query(&wrong, &[&units]).await.unwrap().is_empty().then_some(())
        })
        .await;
        let writes = self
            .client
            .query("SELECT term, backend FROM writes ORDER BY place", &[])
            .await
            .unwrap();
        let mut writes: Vec<(i64, i32)> =
            writes.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert!(writes.is_sorted_by_key(|(term, _)| *term), "{writes:?}");
        // The session of the lead begins a term, and then only that of the upkeep writes.
        writes.dedup();
        for term in writes.chunk_by(|(one, _), (other, _)| one == other) {
            assert!(term.len() <= 2, "more than two sessions wrote a term: {writes:?}");
        }
    }
}

/// The count of each bucket. $1 is the array of units.
const RECOUNT: &str = "SELECT metric, unit, date_trunc(unit, time, 'UTC') AS bucket, count(*) AS count FROM \
     (SELECT 'item-creation' AS metric, created_at AS time FROM items \
     UNION ALL SELECT 'transfers', \"timestamp\" FROM transfers) AS events, unnest($1::text[]) AS unit GROUP BY 1, 2, 3";

/// Posts events in the background.
pub(crate) struct Producer {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Producer {
    /// Stops, and returns when the last event is acknowledged.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn post(ingest_api: &str, parents: Parents, events: usize) {
    let mut items = String::new();
    let mut transfers = String::new();
    for _ in 0..events {
        let id = Uuid::now_v7();
        writeln!(items, "{}", json!({ "id": id, "base_item_id": parents.base_item })).unwrap();
        writeln!(transfers, "{}", json!({ "item_id": id, "owner_id": parents.user })).unwrap();
    }
    for (path, body) in [("items", items), ("transfers", transfers)] {
        let request = client().post(format!("{ingest_api}/{path}"));
        let request = request.header("content-type", "application/x-ndjson").body(body);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

/// The role of a stats-notifier. `None` while it does not respond.
pub(crate) async fn role(internal_url: &str) -> Option<String> {
    let client = internal::http_client().timeout(ROLE_TIMEOUT).build().unwrap();
    let answer = client.get(format!("{internal_url}/readyz")).send().await.ok()?;
    let report: Value = serde_json::from_str(&answer.text().await.ok()?).unwrap();
    Some(report["detail"]["role"].as_str().unwrap().to_owned())
}

/// Waits until the stats-notifier at this address leads.
pub(crate) async fn until_leads(internal_url: &str) {
    until("the standby must take the lead", async || {
        (role(internal_url).await.as_deref() == Some("leader")).then_some(())
    })
    .await;
}

/// What a client observed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The number of streams that it opened.
    pub(crate) streams: usize,
    /// The number of snapshots that it received.
    pub(crate) snapshots: usize,
    /// How often live numbers became stale.
    pub(crate) stale: usize,
}

/// Summarises what a client received. Checks that no count fell or vanished.
pub(crate) fn observed(received: &[Received]) -> Observed {
    let mut last = None::<&Vec<TopicFrame>>;
    for event in received {
        if let Received::Frame(_, shown) = event {
            for before in last.into_iter().flatten() {
                assert_grown(before, &shown.topics);
            }
            last = Some(&shown.topics);
        }
    }
    summary(received)
}

/// Summarises what a client received.
pub(crate) fn summary(received: &[Received]) -> Observed {
    let mut observed = Observed::default();
    let mut live = false;
    for event in received {
        match event {
            Received::Opened => observed.streams += 1,
            Received::Status(status) => {
                let now_live = *status == UpstreamStatus::Live;
                observed.stale += usize::from(live && !now_live);
                live = now_live;
            }
            Received::Frame(kind, _) => {
                observed.snapshots += usize::from(*kind == FrameKind::Snapshot);
            }
        }
    }
    observed
}

/// Checks that each bucket has at least its earlier count, unless newer buckets fill the window.
fn assert_grown(before: &TopicFrame, after: &[TopicFrame]) {
    let after = after.iter().find(|after| after.topic == before.topic).unwrap();
    let oldest = after.buckets.first().filter(|_| after.buckets.len() >= after.window);
    for bucket in &before.buckets {
        let now = after.buckets.iter().find(|now| now.time == bucket.time);
        let evicted = oldest.is_some_and(|oldest| bucket.time < oldest.time);
        let topic = before.topic;
        let time = bucket.time;
        let count = bucket.count;
        assert!(
            evicted || now.is_some_and(|now| now.count >= count),
            "{topic} at {time} had {count}: {now:?}"
        );
    }
}
