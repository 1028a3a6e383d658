//! Waits for a state of the database.
//!
//! Invariant: a question costs the database little, because its answer may be waited for while CPU
//! times are measured. The log is read from its newest rows, which are purged last: from the oldest
//! end, each question would read every row that has been purged and not yet vacuumed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio_postgres::Client;

/// The longest wait. It is there to end a bench that waits for what never comes.
pub(super) const WAIT_TIMEOUT: Duration = Duration::from_secs(600);

/// How often a question is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until a question has the answer `true`. `what` completes the sentence "waited until".
pub(super) async fn until(client: &Client, question: &str, what: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    while !client.query_one(question, &[]).await?.get::<_, bool>(0) {
        check_wait(started, what)?;
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Fails if a wait has lasted too long.
pub(super) fn check_wait(started: Instant, what: &str) -> anyhow::Result<()> {
    ensure!(
        started.elapsed() < WAIT_TIMEOUT,
        "waited {} s until {what}, in vain",
        WAIT_TIMEOUT.as_secs()
    );
    Ok(())
}

/// Waits until everything was folded and purged.
pub(super) async fn until_log_is_empty(client: &Client) -> anyhow::Result<()> {
    let question = "
        SELECT count(*) = 0
        FROM (SELECT FROM count_log ORDER BY xact_id DESC LIMIT 1) AS newest";
    until(client, question, "the log was folded and purged").await
}
