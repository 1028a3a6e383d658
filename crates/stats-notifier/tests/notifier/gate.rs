//! How soon a commit is seen if its transaction did not notify.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postgres_kit::locks::{FIND_HOLDERS, GATE};
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{DEADLINE, Fixture, Running, run};

impl Running {
    /// The time until `count` items are shown, by a clock of steps.
    async fn until_items(&self, count: i64, clock: &StepClock) -> Duration {
        let (started, began) = (Instant::now(), clock.now());
        while self.items() != count {
            assert!(
                started.elapsed() < DEADLINE,
                "{count} items must be shown, not {}",
                self.items()
            );
            tokio::task::yield_now().await;
        }
        clock.now() - began
    }
}

/// A clock that a busy machine slows down, so that the bounds of these tests hold for the notifier
/// and not for the scheduler: a step waits for a timer and for a query, as a tick does.
struct StepClock {
    steps: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl StepClock {
    /// The least time that a step takes.
    const STEP: Duration = Duration::from_millis(1);

    fn start(client: Client) -> Self {
        let steps = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Self::STEP).await;
                client.query_one("SELECT 1", &[]).await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { steps, _task: AbortOnDropHandle::new(task) }
    }

    /// The time by this clock: at most the time by others.
    fn now(&self) -> Duration {
        let steps = self.steps.load(Ordering::Relaxed);
        Self::STEP * u32::try_from(steps).unwrap()
    }
}

async fn gate_is_shut(client: &Client) -> bool {
    client.query_opt(FIND_HOLDERS, &[&GATE.class, &GATE.purpose]).await.unwrap().is_some()
}

async fn until_gate(client: &Client, shut: bool) {
    let started = Instant::now();
    while gate_is_shut(client).await != shut {
        assert!(
            started.elapsed() < DEADLINE,
            "the gate must become {}",
            if shut { "shut" } else { "open" }
        );
    }
}

/// Commits one event after another until the gate is shut. Returns their number.
async fn flow_until_shut(client: &Client, insert: &str) -> i64 {
    let started = Instant::now();
    let mut count = 0;
    while !gate_is_shut(client).await {
        client.batch_execute(insert).await.unwrap();
        count += 1;
        assert!(started.elapsed() < DEADLINE, "a steady flow must shut the gate");
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_age_t_that_did_not_notify_is_seen_within_a_sixteenth_of_t() {
    let fixture = Fixture::create().await;
    let (insert, producer) = (fixture.insert_item(), &fixture.producer);
    let holder = fixture.database.connect().await;
    let clock = StepClock::start(fixture.database.connect().await);
    let running = run(fixture.settings.clone()).await;
    let mut expected = 1;
    for age in [50, 300, 1_000, 3_000, 8_000].map(Duration::from_millis) {
        expected += flow_until_shut(producer, &insert).await;
        // Its trigger finds the gate shut, so its commit does not notify.
        holder.batch_execute("BEGIN").await.unwrap();
        let begun = Instant::now();
        holder.batch_execute(&insert).await.unwrap();
        assert!(gate_is_shut(producer).await, "the trigger must have run while the gate was shut");
        until_gate(producer, false).await;
        tokio::time::sleep_until((begun + age).into()).await;
        let age = begun.elapsed();
        holder.batch_execute("COMMIT").await.unwrap();
        expected += 1;
        let seen = running.until_items(expected, &clock).await;
        let bound = age / 16 + Duration::from_millis(50);
        assert!(
            seen <= bound,
            "committed at age {age:?}, seen after {seen:?}, which is more than {bound:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_arrive_within_the_longest_interval_without_a_listener() {
    let mut fixture = Fixture::create().await;
    fixture.settings.tick.listen = false;
    let clock = StepClock::start(fixture.database.connect().await);
    let running = run(fixture.settings.clone()).await;
    for count in 2..6 {
        fixture.execute(&fixture.insert_item()).await;
        let seen = running.until_items(count, &clock).await;
        let bound = Duration::from_millis(1_100);
        assert!(seen <= bound, "seen after {seen:?}, which is more than {bound:?}");
    }
}
