//! Waiting for a condition, with a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until there is something; `None` at the end of `patience`.
///
/// # Errors
/// Those of `look`.
pub async fn until<T>(
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        if started.elapsed() > patience {
            return Ok(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}
