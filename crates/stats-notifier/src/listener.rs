//! Wakes the leader when producers notify.
//!
//! Invariant: a notification only wakes. Whatever is lost here makes a count come later, never wrong, for the
//! leader polls anyway. It is a connection of its own that does nothing but read: a listener that does not read
//! fills the server's queue for everybody.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use metrics::Counter;
use postgres_kit::database::DatabaseSettings;
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, NoTls};
use tokio_util::task::AbortOnDropHandle;

use crate::store::{StoreError, within};

/// How often the listener sends itself a notification, to see that it still hears.
const SELF_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long such a notification may take.
const SELF_CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the server keeps the session of a listener that says nothing, which is longer than any that is well
/// does: one that was frozen reads nothing, so that the server's queue would fill up for everybody.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it waits before it connects anew.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(250);

/// The channel of the self-check.
const SELF_CHECK: &str = "newcycle_self_check";

/// Listens on the channels that the triggers notify.
pub struct Listener {
    database: DatabaseSettings,
    woken: Arc<Notify>,
    notifications: Counter,
}

impl Listener {
    /// A listener that wakes `woken`, and counts what it hears.
    #[must_use]
    pub const fn new(database: DatabaseSettings, woken: Arc<Notify>, notifications: Counter) -> Self {
        Self { database, woken, notifications }
    }

    /// Listens, and connects anew whenever it no longer hears.
    pub async fn run(&self) {
        loop {
            let Err(error) = self.listen().await;
            tracing::warn!(error = %error, "not listening; connecting anew, and polling meanwhile");
            tokio::time::sleep(RECONNECT_INTERVAL).await;
        }
    }

    async fn listen(&self) -> Result<std::convert::Infallible, StoreError> {
        let mut config = self.database.connection("stats-notifier listener");
        let (idle, unread) = (SESSION_TIMEOUT.as_millis(), SELF_CHECK_TIMEOUT.as_millis());
        config
            .options(format!("-c TimeZone=UTC -c idle_session_timeout={idle} -c tcp_user_timeout={unread}"));
        let connecting = async { Ok(config.connect(NoTls).await?) };
        let (client, mut connection) = within(self.database.connect_timeout.get(), connecting).await?;
        let (woken, heard) = (Arc::clone(&self.woken), Arc::new(Notify::new()));
        let (heard_self, notifications) = (Arc::clone(&heard), self.notifications.clone());
        let _driver = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut messages = poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                match message {
                    AsyncMessage::Notification(notification) if notification.channel() == SELF_CHECK => {
                        heard_self.notify_one();
                    }
                    AsyncMessage::Notification(_) => {
                        notifications.increment(1);
                        woken.notify_one();
                    }
                    _ => {}
                }
            }
        }));
        let listen = format!("LISTEN item_creation; LISTEN item_transfer; LISTEN {SELF_CHECK}");
        within(SELF_CHECK_TIMEOUT, async { Ok(client.batch_execute(&listen).await?) }).await?;
        // Listen first, then look: what was committed in between is seen by that tick.
        self.woken.notify_one();
        loop {
            tokio::time::sleep(SELF_CHECK_INTERVAL).await;
            let check = async {
                client.batch_execute(&format!("NOTIFY {SELF_CHECK}")).await?;
                heard.notified().await;
                Ok(())
            };
            within(SELF_CHECK_TIMEOUT, check).await?;
        }
    }
}
