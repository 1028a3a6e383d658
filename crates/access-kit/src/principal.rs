//! Who sends a request: all that a service sees of a credential.

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
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
