//! The statuses that a hub repeats, so that its subscribers notice soon when it falls silent.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::liveness::Audience;
use crate::status::UpstreamStatus;

/// The heartbeat to clients. Runs for as long as the hub exists and is not closed.
pub(crate) async fn to_clients(hub: Weak<Hub>, closed: CancellationToken) {
    let Some(interval) = hub.upgrade().map(|hub| hub.settings.heartbeat.get()) else { return };
    let mut heartbeat = tokio::time::interval(interval);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {}
            () = closed.cancelled() => return,
        }
        let Some(hub) = hub.upgrade() else { return };
        hub.beat(Audience::Clients);
    }
}

/// The heartbeat to gateways, and to clients that asked for a short one. Runs for as long as the
/// hub exists and is not closed.
///
/// It follows the upstream's: while that is live, a beat waits for a sign of life, up to a quarter
/// of the interval. By a clock of its own, each hop would repeat a status that is up to an interval
/// old, and the age that clients see would grow by that much with each hop. A notifier without
/// events polls less and less often, so the beat takes a sign early if the next one may come too
/// late.
pub(crate) async fn to_gateways(hub: Weak<Hub>, closed: CancellationToken) {
    let Some(current) = hub.upgrade() else { return };
    let (interval, signs) =
        (current.settings.internal_heartbeat.get(), Arc::clone(&current.upstream_signs));
    drop(current);
    // A little less than the interval, because the upstream's beats come a little early, too.
    let pause = interval * 9 / 10;
    // A sign that is expected later is not waited for. Before the beat without a sign, because the
    // expectation is not exact.
    let patience = interval * 11 / 10;
    loop {
        // Not kept while it waits, so that a hub without users is dropped.
        let Some(hub) = hub.upgrade() else { return };
        // From here on, no sign of life is missed.
        let mut next_sign = pin!(signs.notified());
        let announced = hub.beat(Audience::Gateways);
        let is_live = hub.upstream() == UpstreamStatus::Live;
        drop(hub);
        let last = Instant::now();
        // After a beat with nothing to announce, the next sign of life is announced at once.
        let earliest = last + if announced { pause } else { Duration::ZERO };
        let latest = last + if is_live { interval * 5 / 4 } else { interval };
        let sign = async {
            let mut before = last;
            loop {
                next_sign.as_mut().await;
                next_sign.set(signs.notified());
                let now = Instant::now();
                let next = now + (now - before);
                if now >= earliest || next > last + patience {
                    return;
                }
                before = now;
            }
        };
        tokio::select! {
            () = sign => {}
            () = tokio::time::sleep_until(latest) => {}
            () = closed.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{Nonce, Statistics, Version};
    use service_kit::settings::NonZeroDuration;

    use super::*;
    use crate::settings::HubSettings;
    use crate::status::Status;
    use crate::subscriber::internal_stream_response;
    use crate::subscriber::tests::next_event;

    /// The age in an event, in milliseconds, if it is a status.
    fn age(event: &str) -> Option<u64> {
        let (_, data) = event.split_once("event: status\ndata: ")?;
        let status: Status = serde_json::from_str(data).unwrap();
        Some(status.age_ms.unwrap_or_default())
    }

    /// The times and ages of the statuses that a gateway receives, in milliseconds, after `skipped`
    /// ones.
    async fn statuses(hub: &Arc<Hub>, skipped: usize, count: usize) -> Vec<(u128, u64)> {
        let mut body = Box::pin(internal_stream_response(hub, None).unwrap().into_body());
        let (mut found, started) = (Vec::new(), Instant::now());
        while found.len() < skipped + count {
            let event = next_event(body.as_mut()).await.unwrap();
            found.extend(age(&event).map(|age| (started.elapsed().as_millis(), age)));
        }
        found.split_off(skipped)
    }

    /// Whatever the moment at which the hub began, and however often the upstream reports.
    #[tokio::test(start_paused = true)]
    async fn a_hub_forwards_the_status_of_its_upstream_at_once_and_once_a_second() {
        for (phase, period) in [(0, 1_000), (100, 1_000), (500, 1_000), (970, 995), (0, 5)] {
            let hub = Hub::new(HubSettings::default());
            hub.start(Statistics::new(Version { nonce: Nonce::new(1), tick: 0 }));
            hub.mark_live();
            let reports = async {
                tokio::time::sleep(Duration::from_millis(phase)).await;
                loop {
                    hub.mark_live_for(Duration::from_millis(7));
                    tokio::time::sleep(Duration::from_millis(period)).await;
                }
            };
            let statuses = tokio::select! {
                statuses = statuses(&hub, 5, 10) => statuses,
                () = reports => unreachable!("it does not end"),
            };
            for pair in statuses.windows(2) {
                let [(before, _), (at, age)] = pair else { unreachable!("pairs") };
                assert!((880..=1_010).contains(&(at - before)), "{phase} {period} {statuses:?}");
                assert!((7..=10).contains(age), "{phase} {period} {statuses:?}");
            }
        }
    }

    /// Whatever the interval of the polls, and while it grows as it does after the last event.
    #[tokio::test(start_paused = true)]
    async fn each_hop_forwards_statuses_that_are_new() {
        for growth in [1.0, 1.06] {
            for first in [5, 130, 440, 560, 700, 850, 950] {
                // The heartbeat to clients has a clock of its own.
                let heartbeat = NonZeroDuration::from_millis(3_600_000);
                let hop = || Hub::new(HubSettings { heartbeat, ..HubSettings::default() });
                let hops = [hop(), hop()];
                for hub in &hops {
                    hub.start(Statistics::new(Version { nonce: Nonce::new(1), tick: 0 }));
                    hub.mark_live();
                }
                let polls = async {
                    let mut pause = Duration::from_millis(first);
                    loop {
                        hops[0].mark_live();
                        tokio::time::sleep(pause).await;
                        pause = pause.mul_f64(growth).min(Duration::from_secs(1));
                    }
                };
                let forward = async {
                    let mut body =
                        Box::pin(internal_stream_response(&hops[0], None).unwrap().into_body());
                    loop {
                        if let Some(age) = age(&next_event(body.as_mut()).await.unwrap()) {
                            hops[1].mark_live_for(Duration::from_millis(age));
                        }
                    }
                };
                let statuses = tokio::select! {
                    statuses = statuses(&hops[1], 5, 60) => statuses,
                    () = polls => unreachable!("it does not end"),
                    () = forward => unreachable!("it does not end"),
                };
                for pair in statuses.windows(2) {
                    let [(before, _), (at, age)] = pair else { unreachable!("pairs") };
                    assert!(at - before <= 1_250 && *age <= 20, "{first} {growth} {statuses:?}");
                }
                let (begin, end) = (statuses[0].0, statuses[statuses.len() - 1].0);
                assert!(end - begin >= 500 * statuses.len() as u128, "{first} {statuses:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_sign_of_life_is_forwarded_at_once() {
        let hub = Hub::new(HubSettings::default());
        hub.start(Statistics::new(Version { nonce: Nonce::new(1), tick: 0 }));
        let reports = async {
            for pause in [0, 1_000, 1_000, 1_600, 1_000, 1_000] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                hub.mark_live();
            }
            std::future::pending::<()>().await;
        };
        let statuses = tokio::select! {
            statuses = statuses(&hub, 1, 5) => statuses,
            () = reports => unreachable!("it does not end"),
        };
        let times: Vec<_> = statuses.iter().map(|(time, _)| time / 100).collect();
        assert_eq!(times, [0, 10, 20, 36, 46], "{statuses:?}");
    }
}
