//! Who sends a request: all that a service sees of a credential.

use std::future::{Ready, ready};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use time::OffsetDateTime;

use crate::key::KeyId;
use crate::refusal::Refusal;
use crate::scope::{Permission, Scopes};

/// Who sends a request, and what it may do.
#[derive(Debug)]
pub struct Principal {
    pub(crate) identity: Identity,
    pub(crate) scopes: Scopes,
    /// When its access ends by itself.
    pub(crate) until: Option<OffsetDateTime>,
    pub(crate) limits: Limits,
}

/// What a key has instead of the limits that all keys have.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// The number of requests a second; `None` if that is not limited.
    pub(crate) rate: Option<Arc<Rate>>,
    /// The number of streams that it may hold; `None` for the share of every key.
    pub streams: Option<usize>,
}

/// Counts the requests of a key.
#[derive(Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: NonZeroU32,
    limiter: DefaultDirectRateLimiter,
}

impl Rate {
    /// Permits this many requests a second, and as many at once.
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, limiter: RateLimiter::direct(Quota::per_second(per_second)) }
    }
}

/// What a principal is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The owner of a key.
    Key {
        /// Names the key in rows and records, for ever.
        number: i32,
        /// The id in the key's text.
        id: KeyId,
        /// The name that its maker gave it.
        name: String,
    },
    /// A client without a credential.
    Anonymous,
    /// Any client, because access is not controlled (`access.mode = "open"`).
    Everyone,
}

impl Principal {
    /// What it is known by.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The number that is stored with rows that it writes.
    #[must_use]
    pub const fn number(&self) -> Option<i32> {
        match self.identity {
            Identity::Key { number, .. } => Some(number),
            Identity::Anonymous | Identity::Everyone => None,
        }
    }

    /// The name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.identity {
            Identity::Key { name, .. } => name,
            Identity::Anonymous => "anonymous",
            Identity::Everyone => "everyone",
        }
    }

    /// What it may do.
    #[must_use]
    pub const fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// When its access ends by itself.
    #[must_use]
    pub const fn until(&self) -> Option<OffsetDateTime> {
        self.until
    }

    /// The limits of its own.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts a request.
    ///
    /// # Errors
    /// [`Refusal::Rate`] if there were too many.
    pub(crate) fn count_request(&self) -> Result<(), Refusal> {
        let Some(rate) = &self.limits.rate else { return Ok(()) };
        rate.limiter.check().map_err(|early| Refusal::Rate {
            name: self.name().to_owned(),
            per_second: rate.per_second,
            retry_after: whole_seconds(early.wait_time_from(DefaultClock::default().now())),
        })
    }

    /// Checks that something is permitted. For counts, of at least one topic.
    ///
    /// # Errors
    /// [`Refusal::Scope`], which names the scope.
    pub fn check(&self, permission: Permission) -> Result<(), Refusal> {
        if self.scopes.allow(permission) {
            return Ok(());
        }
        Err(Refusal::Scope { needed: permission.name().to_owned(), name: self.name().to_owned() })
    }

    /// Checks that the counts of all these topics may be read.
    ///
    /// # Errors
    /// [`Refusal::Scope`], which names the first topic that may not be read.
    pub fn check_topics<T: ToString>(
        &self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), Refusal> {
        let mut names = topics.into_iter().map(|topic| topic.to_string());
        match names.find(|topic| !self.scopes.allow_topic(topic)) {
            None => Ok(()),
            Some(topic) => Err(Refusal::Scope {
                needed: format!("{}:{topic}", Permission::StatisticsRead),
                name: self.name().to_owned(),
            }),
        }
    }
}

/// Seconds, rounded up, for `Retry-After`.
pub(crate) fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

/// The principal of a request that the guard admitted.
#[derive(Debug, Clone)]
pub struct Admitted(pub Arc<Principal>);

impl FromRequest for Admitted {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    /// Fails with 401 on a route without a guard, so that a mistake opens nothing.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let admitted = request.extensions().get::<Self>().cloned();
        ready(admitted.ok_or_else(|| {
            tracing::error!("a handler needs a principal, but its route has no guard");
            Refusal::Missing.into()
        }))
    }
}
