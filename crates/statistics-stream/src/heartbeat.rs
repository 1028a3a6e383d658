//! The statuses that a hub repeats, so that its subscribers notice soon when it falls silent.

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
/// It follows the upstream's: while that is live, a beat waits for the next sign of life, up to a
/// quarter of the interval. By a clock of its own, each hop would repeat a status that is up to an
/// interval old, and the age that clients see would grow by that much with each hop.
pub(crate) async fn to_gateways(hub: Weak<Hub>, closed: CancellationToken) {
    let Some(current) = hub.upgrade() else { return };
    let (interval, signs) =
        (current.settings.internal_heartbeat.get(), Arc::clone(&current.upstream_signs));
    drop(current);
    // A little less than the interval, because the upstream's beats come a little early, too.
    let pause = interval * 9 / 10;
    loop {
        // Not kept while it waits, so that a hub without users is dropped.
        let Some(hub) = hub.upgrade() else { return };
        let announced = hub.beat(Audience::Gateways);
        let is_live = hub.upstream() == UpstreamStatus::Live;
        drop(hub);
        let last = Instant::now();
        // After a beat with nothing to announce, the next sign of life is announced at once.
        let earliest = last + if announced { pause } else { Duration::ZERO };
        let latest = last + if is_live { interval * 5 / 4 } else { interval };
        let sign = async {
            tokio::time::sleep_until(earliest).await;
            signs.notified().await;
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

    use super::*;
    use crate::settings::HubSettings;
    use crate::status::Status;
    use crate::subscriber::internal_stream_response;
    use crate::subscriber::tests::next_event;

    /// The times and ages of the statuses that a gateway receives, in milliseconds, after `skipped`
    /// ones.
    async fn statuses(hub: &Arc<Hub>, skipped: usize, count: usize) -> Vec<(u128, u64)> {
        let mut body = Box::pin(internal_stream_response(hub, None).unwrap().into_body());
        let (mut found, started) = (Vec::new(), Instant::now());
        while found.len() < skipped + count {
            let event = next_event(body.as_mut()).await.unwrap();
            if let Some((_, data)) = event.split_once("event: status\ndata: ") {
                let status: Status = serde_json::from_str(data).unwrap();
                found.push((started.elapsed().as_millis(), status.age_ms.unwrap_or_default()));
            }
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
