//! Waits for a condition, with a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// The interval between two evaluations of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Calls `look` until it returns a value. Returns `None` if it has not after `timeout`.
///
/// # Errors
/// The first error of `look`.
pub(crate) async fn until<T>(
    timeout: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        if started.elapsed() > timeout {
            return Ok(None);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
