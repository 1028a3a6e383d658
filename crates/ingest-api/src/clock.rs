//! What time it is, injected so that tests can say.

use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Clock {
    /// The clock of this machine.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(OffsetDateTime::now_utc))
    }

    /// A clock that stands still.
    #[must_use]
    pub fn fixed(now: OffsetDateTime) -> Self {
        Self(Arc::new(move || now))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clock")
    }
}
