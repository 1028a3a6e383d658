//! Measures for how long events are not acknowledged, and how old the counts become.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use local_stack::internal;
use local_stack::test_database::client;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::wait::until;
use crate::world::TestWorld;

/// The interval between two samples: what is measured is up to this much too long or too short.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long one request for the age may take.
const AGE_TIMEOUT: Duration = Duration::from_secs(1);

/// Counts of up to this age are current. Under load, they are confirmed with each version.
const CURRENT: Duration = Duration::from_secs(1);

/// How long the first measurements may take, and how long it may take until counts are current.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The effect of a fault on producers and viewers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gaps {
    /// The longest time in which one of the ingest-apis acknowledged nothing, although it was
    /// sent an event ten times a second.
    pub(super) unacknowledged: Duration,
    /// The highest age of a gateway's counts.
    pub(super) age: Duration,
}

/// Sends events and reads ages until it is [stopped](GapMeter::stop).
pub(super) struct GapMeter {
    stop: CancellationToken,
    samples: Arc<Mutex<Samples>>,
    _posting: AbortOnDropHandle<()>,
    posted: tokio::sync::oneshot::Receiver<()>,
    _reading: JoinSet<()>,
}

#[derive(Debug)]
struct Samples {
    /// For each ingest-api, when it last acknowledged an event.
    last: Vec<Option<Instant>>,
    /// The longest time between two acknowledgements of one ingest-api.
    unacknowledged: Duration,
    /// For each gateway, the age of its counts.
    ages: Vec<Option<Duration>>,
    age: Duration,
}

impl Samples {
    fn acknowledged(&mut self, ingest: usize, now: Instant) {
        // Answers may overtake each other.
        let before = self.last[ingest].filter(|before| *before < now);
        if let Some(before) = before {
            self.unacknowledged = self.unacknowledged.max(now - before);
        }
        self.last[ingest] = self.last[ingest].max(Some(now));
    }

    fn aged(&mut self, gateway: usize, age: Duration) {
        self.ages[gateway] = Some(age);
        self.age = self.age.max(age);
    }
}

impl GapMeter {
    /// Starts, and returns after the first measurements. `gateways` are the base URLs of their
    /// internal ports.
    pub(super) async fn start(world: &TestWorld, gateways: &[String]) -> anyhow::Result<Self> {
        let samples = Arc::new(Mutex::new(Samples {
            last: vec![None; world.ingest.len()],
            unacknowledged: Duration::ZERO,
            ages: vec![None; gateways.len()],
            age: Duration::ZERO,
        }));
        let stop = CancellationToken::new();
        let (done, posted) = tokio::sync::oneshot::channel();
        let posting = post(world.clone(), Arc::clone(&samples), stop.clone());
        let posting = AbortOnDropHandle::new(tokio::spawn(async move {
            posting.await;
            // Nobody waits if the meter was dropped.
            let _dropped = done.send(());
        }));
        let mut reading = JoinSet::new();
        for (number, gateway) in gateways.iter().enumerate() {
            reading.spawn(read_ages(number, format!("{gateway}/metrics"), Arc::clone(&samples)));
        }
        let meter = Self { stop, samples, _posting: posting, posted, _reading: reading };
        let measured = until(TIMEOUT, async || {
            let samples = meter.samples.lock();
            Ok(samples.last.iter().all(Option::is_some) && samples.ages.iter().all(Option::is_some))
        });
        ensure!(measured.await?, "there was no acknowledgement or no age before a fault");
        // The time before the first samples was not measured.
        meter.samples.lock().age = Duration::ZERO;
        Ok(meter)
    }

    /// Waits until the counts of all gateways are current.
    pub(super) async fn until_current(&self) -> anyhow::Result<()> {
        let current = until(TIMEOUT, async || {
            let samples = self.samples.lock();
            Ok(samples.ages.iter().all(|age| age.is_some_and(|age| age <= CURRENT)))
        });
        let is_current = current.await?;
        let ages = self.samples.lock().ages.clone();
        let seconds = TIMEOUT.as_secs();
        ensure!(is_current, "the counts were not current within {seconds} s: {ages:?}");
        Ok(())
    }

    /// Stops, and returns when all events were answered.
    pub(super) async fn stop(self) -> anyhow::Result<Gaps> {
        self.stop.cancel();
        self.posted.await?;
        let samples = self.samples.lock();
        Ok(Gaps { unacknowledged: samples.unacknowledged, age: samples.age })
    }
}

/// Posts an item to each ingest-api at each interval, whether the earlier ones were answered or
/// not: one that waits would hide that later ones are acknowledged.
async fn post(world: TestWorld, samples: Arc<Mutex<Samples>>, stop: CancellationToken) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let client = client();
    let mut posts = JoinSet::new();
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        for ingest in 0..world.ingest.len() {
            let (world, client) = (world.clone(), client.clone());
            let samples = Arc::clone(&samples);
            posts.spawn(async move {
                if world.post(&client, ingest).await {
                    samples.lock().acknowledged(ingest, Instant::now());
                }
            });
        }
        while posts.try_join_next().is_some() {}
    }
    while posts.join_next().await.is_some() {}
}

/// Reads the age of a gateway's counts from its metrics, again and again.
async fn read_ages(gateway: usize, url: String, samples: Arc<Mutex<Samples>>) {
    let client = internal::client();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Ok(answer) = client.get(&url).timeout(AGE_TIMEOUT).send().await else { continue };
        let Ok(text) = answer.text().await else { continue };
        if let Some(age) = age(&text) {
            samples.lock().aged(gateway, age);
        }
    }
}

/// The age of the counts, from the metrics of a gateway. `None` before the first counts.
fn age(metrics: &str) -> Option<Duration> {
    let value =
        metrics.lines().find_map(|line| line.strip_prefix("gateway_counts_age_seconds "))?;
    Duration::try_from_secs_f64(value.trim().parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_the_longest_time_between_two_acknowledgements_of_one_ingest_api() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut samples = Samples {
            last: vec![None; 2],
            unacknowledged: Duration::ZERO,
            ages: Vec::new(),
            age: Duration::ZERO,
        };
        // The last answer overtook the one before it.
        for (ingest, second) in [(0, 0), (1, 1), (0, 2), (1, 6), (0, 9), (0, 8)] {
            samples.acknowledged(ingest, at(second));
        }
        assert_eq!(samples.unacknowledged, Duration::from_secs(7));
    }

    #[test]
    fn the_age_is_read_from_the_metrics() {
        let text = |age: &str| format!("# HELP a\ngateway_counts_age_seconds {age}\nother 1\n");
        assert_eq!(age(&text("12.5")), Some(Duration::from_millis(12_500)));
        assert_eq!(age(&text("NaN")), None);
    }
}
