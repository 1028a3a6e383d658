//! Wakes the leader when a producer notifies.
//!
//! Invariant: a notification only wakes. If one is lost, a count comes later but never wrong,
//! because the leader also polls. The listener has a connection of its own that only reads: a
//! session that listens and does not read would fill the notification queue of the whole server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use metrics::Counter;
use postgres_kit::database::DatabaseSettings;
use service_kit::failure::FailureLog;
use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;
use tokio_util::task::AbortOnDropHandle;

use crate::store::StoreError;
use crate::store::channels::{LISTEN, NOTIFY_SELF, SELF_CHECK_CHANNEL};
use crate::store::connection::with_timeout;

/// How often the listener notifies itself, to check that it still receives notifications.
const SELF_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The longest time until such a notification must arrive.
const SELF_CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// The idle timeout of the session on the server, longer than the interval of the self-check. It
/// ends the session of a frozen listener, which would otherwise fill the notification queue.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before the listener connects again.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(250);

/// Listens on the channels that the triggers notify, and connects again whenever the connection
/// fails. Each notification wakes `wake`, and counts in `notifications`.
pub(crate) async fn run(database: &DatabaseSettings, wake: &Arc<Notify>, notifications: &Counter) {
    let mut failures = FailureLog::default();
    loop {
        let Err(error) = listen(database, wake, notifications, &mut failures).await;
        if failures.should_log() {
            tracing::warn!(error = %error, "not listening for notifications; polling, and connecting again");
        }
        tokio::time::sleep(RECONNECT_INTERVAL).await;
    }
}

async fn listen(
    database: &DatabaseSettings,
    wake: &Arc<Notify>,
    notifications: &Counter,
    failures: &mut FailureLog,
) -> Result<Infallible, StoreError> {
    let mut config = database.connection("stats-notifier listener");
    let idle = SESSION_TIMEOUT.as_millis();
    let unread = SELF_CHECK_TIMEOUT.as_millis();
    config.options(format!(
        "-c TimeZone=UTC -c idle_session_timeout={idle} -c tcp_user_timeout={unread}"
    ));
    let (client, mut connection) = database.connect(&config).await?;
    let self_check = Arc::new(Notify::new());
    let received_self_check = Arc::clone(&self_check);
    let received = Arc::clone(wake);
    let notifications = notifications.clone();
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut messages = poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            match message {
                AsyncMessage::Notification(notification)
                    if notification.channel() == SELF_CHECK_CHANNEL =>
                {
                    received_self_check.notify_one();
                }
                AsyncMessage::Notification(_) => {
                    notifications.increment(1);
                    received.notify_one();
                }
                _ => {}
            }
        }
    }));
    with_timeout(SELF_CHECK_TIMEOUT, async { Ok(client.batch_execute(LISTEN).await?) }).await?;
    failures.end();
    // Wake the leader only after LISTEN: its tick sees what was committed before that.
    wake.notify_one();
    loop {
        tokio::time::sleep(SELF_CHECK_INTERVAL).await;
        let check = async {
            client.batch_execute(NOTIFY_SELF).await?;
            self_check.notified().await;
            Ok(())
        };
        with_timeout(SELF_CHECK_TIMEOUT, check).await?;
    }
}
