//! Why a request is refused, and what it is answered: problem details (RFC 9457) and a challenge
//! (RFC 6750, section 3).
//!
//! An answer names why a key was refused only to a client that has the key's secret.

use std::num::NonZeroU32;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue, VARY, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use service_kit::problem::Problem;

use crate::key::KeyId;

/// The protection space of challenges.
const REALM: &str = "newcycle";

/// How long a client should wait for the first keyring.
const KEYRING_RETRY_SECONDS: u64 = 2;

/// How long a client should wait for a place that another request of its key holds.
const SHARE_RETRY_SECONDS: u64 = 2;

/// What an answer depends on, if it needed a credential.
pub(crate) const VARIES: HeaderValue = HeaderValue::from_static("authorization, cookie");

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It presents no credential, and the route needs one.
    #[error(
        "This path needs a key: send it in the header `Authorization: Bearer nc_…`. An operator \
         makes one with the program `access`."
    )]
    Missing,
    /// The credential is no key, or is not known.
    #[error("The credential is not a key of this system. Check that it is complete.")]
    Unknown,
    /// The key was valid, and is not any more.
    #[error("The key {id} is not valid any more: it {why}. Ask an operator for a new one.")]
    Ended {
        /// Which one.
        id: KeyId,
        /// What happened.
        why: Ending,
    },
    /// The principal may not do this.
    #[error("The key {name:?} does not have the scope {needed}, which this needs.")]
    Scope {
        /// The scope that is missing.
        needed: String,
        /// The name of the key.
        name: String,
    },
    /// A page of another website used the cookie.
    #[error(
        "The page that sends this request is not one that may use the session of this browser. If \
         it should be, add its origin to the setting cors.allowed_origins."
    )]
    Foreign,
    /// The credential is in the address, which proxies and browsers keep.
    #[error(
        "A credential in the address ends up in logs and histories. Send it in the header \
         `Authorization: Bearer nc_…`, and replace this one: access roll."
    )]
    InAddress,
    /// Several credentials.
    #[error("The request presents several credentials. Send one `Authorization` header.")]
    Ambiguous,
    /// The key sends too many requests.
    #[error("The key {name:?} may send {per_second} requests a second, and has sent more.")]
    Rate {
        /// The name of the key.
        name: String,
        /// How many it may send.
        per_second: NonZeroU32,
        /// When there is room again, in seconds.
        retry_after: u64,
    },
    /// The key holds its share of what all clients share.
    #[error(
        "The key {name:?} has {most} {what} at the same time already, which is all that one key may \
         have. Wait until one of them ends."
    )]
    Share {
        /// The name of the key.
        name: String,
        /// How many it may hold.
        most: usize,
        /// Their name in the plural.
        what: &'static str,
    },
    /// Too many requests from this address were refused.
    #[error("Too many requests from this address were refused. A valid key is still accepted.")]
    Flood {
        /// When the next one is answered with its reason, in seconds.
        retry_after: u64,
    },
    /// The keys are not known yet, or not any more, so the client must not give up its credential.
    #[error("The service cannot check credentials now, because it cannot reach the list of keys.")]
    NoKeyring,
}

/// Why a key is not valid any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was revoked, or replaced.
    Revoked,
    /// Its time is over.
    Expired,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Revoked => "was revoked",
            Self::Expired => "has expired",
        })
    }
}

impl Refusal {
    /// The name of the reason, for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Ended { why: Ending::Revoked, .. } => "revoked",
            Self::Ended { why: Ending::Expired, .. } => "expired",
            Self::Scope { .. } => "scope",
            Self::Foreign => "foreign-origin",
            Self::InAddress => "in-address",
            Self::Ambiguous => "ambiguous",
            Self::Rate { .. } => "rate",
            Self::Share { .. } => "share",
            Self::Flood { .. } => "flood",
            Self::NoKeyring => "no-keyring",
        }
    }

    /// The challenge, if a better credential could help.
    fn challenge(&self) -> Option<String> {
        let error = match self {
            Self::Missing => return Some(format!("Bearer realm=\"{REALM}\"")),
            Self::Unknown | Self::Ended { .. } => "error=\"invalid_token\"".to_owned(),
            // A scope has no character that a quoted string must escape.
            Self::Scope { needed, .. } => {
                format!("error=\"insufficient_scope\", scope=\"{needed}\"")
            }
            Self::InAddress | Self::Ambiguous => "error=\"invalid_request\"".to_owned(),
            Self::Foreign
            | Self::Rate { .. }
            | Self::Share { .. }
            | Self::Flood { .. }
            | Self::NoKeyring => return None,
        };
        Some(format!("Bearer realm=\"{REALM}\", {error}"))
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Unknown | Self::Ended { .. } => StatusCode::UNAUTHORIZED,
            Self::Scope { .. } | Self::Foreign => StatusCode::FORBIDDEN,
            Self::InAddress | Self::Ambiguous => StatusCode::BAD_REQUEST,
            Self::Rate { .. } | Self::Share { .. } | Self::Flood { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::NoKeyring => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let (kind, title) = match self {
            Self::Missing => ("/problems/no-credential", "A key is needed"),
            Self::Unknown | Self::Ended { .. } => {
                ("/problems/invalid-credential", "The key is not valid")
            }
            Self::Scope { .. } => ("/problems/insufficient-scope", "The key does not permit this"),
            Self::Foreign => ("/problems/foreign-origin", "The page may not use this session"),
            Self::InAddress => ("/problems/credential-in-address", "A credential in the address"),
            Self::Ambiguous => ("/problems/several-credentials", "Several credentials"),
            Self::Rate { .. } | Self::Flood { .. } => {
                ("/problems/too-many-requests", "Too many requests")
            }
            Self::Share { .. } => ("/problems/too-many-at-once", "Too many at the same time"),
            Self::NoKeyring => ("/problems/unavailable", "The service cannot answer now"),
        };
        let mut problem = Problem::new(self.status_code(), kind, title, self.to_string());
        match self {
            Self::Scope { needed, name } => {
                problem = problem.member("scope", needed.as_str()).member("key", name.as_str());
            }
            Self::Ended { id, .. } => problem = problem.member("key_id", id.to_string()),
            Self::NoKeyring => problem = problem.retry_after(KEYRING_RETRY_SECONDS),
            Self::Share { name, .. } => {
                problem = problem.member("key", name.as_str()).retry_after(SHARE_RETRY_SECONDS);
            }
            Self::Rate { name, retry_after, .. } => {
                problem = problem.member("key", name.as_str()).retry_after(*retry_after);
            }
            Self::Flood { retry_after } => problem = problem.retry_after(*retry_after),
            _ => {}
        }
        let mut response = problem.response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, VARIES);
        let challenge = self.challenge().and_then(|text| HeaderValue::from_str(&text).ok());
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
