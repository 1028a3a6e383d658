//! Waits for a condition, with a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// The interval between two evaluations of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until a condition holds. Returns whether it did within `timeout`.
pub(crate) async fn until(
    timeout: Duration,
    mut holds: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let started = Instant::now();
    while !holds().await? {
        if started.elapsed() > timeout {
            return Ok(false);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(true)
}
