//! The guard in front of every route of a public port: it admits a request, or answers why not,
//! before the body is read.
//!
//! Invariants:
//! - A route needs what [`Needs`] says, which the route's own declaration makes. A route that is
//!   not in it answers nothing at all. What a route needs is checked once more by the route itself
//!   ([`Need::check`]): the router and this guard might read a path differently.
//! - An unknown path needs a credential, as a known one does, so it reveals nothing to others.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, VARY};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError};
use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use metrics::{counter, describe_counter};
use service_kit::guard::Guard;
use service_kit::host::client_address;
use service_kit::metrics::Metrics;
use service_kit::observe::matched_route;

use crate::control::AccessControl;
use crate::credential::presented;
use crate::principal::{Admitted, Principal};
use crate::refusal::{Refusal, VARIES};
use crate::scope::Permission;

const REFUSALS: &str = "access_refusals_total";

/// How many refusals are logged in a minute at most, so that a flood cannot fill the log. The
/// metric counts all.
const LOGGED_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing. The route has no data, such as the files of a page.
    Nothing,
    /// Any valid credential.
    AnyKey,
    /// A credential that permits this.
    Permission(Permission),
}

impl Need {
    /// Checks that a request which the guard admitted has what its route needs.
    ///
    /// # Errors
    /// [`Refusal::Missing`] without a principal, and [`Refusal::Scope`].
    pub fn check(self, request: &HttpRequest) -> Result<(), Refusal> {
        match (self, request.extensions().get()) {
            (Self::Nothing, _) => Ok(()),
            (_, Some(Admitted(principal))) => self.check_principal(principal),
            (_, None) => Err(Refusal::Missing),
        }
    }

    fn check_principal(self, principal: &Principal) -> Result<(), Refusal> {
        match self {
            Self::Nothing | Self::AnyKey => Ok(()),
            Self::Permission(permission) => principal.check(permission),
        }
    }
}

/// What each route needs, by its pattern and method.
#[derive(Debug, Clone, Default)]
pub struct Needs(HashMap<&'static str, Vec<(Method, Need)>>);

impl Needs {
    /// Adds a route.
    pub fn add(&mut self, pattern: &'static str, method: Method, need: Need) {
        self.0.entry(pattern).or_default().push((method, need));
    }

    /// What a request needs; `None` if its route was not added. A path without a route, or a method
    /// that a path does not have, is answered with an error to any valid credential.
    fn of(&self, pattern: Option<&str>, method: &Method) -> Option<Need> {
        let Some(pattern) = pattern else { return Some(Need::AnyKey) };
        let methods = self.0.get(pattern)?;
        if methods.iter().all(|(_, need)| *need == Need::Nothing) {
            return Some(Need::Nothing);
        }
        // The server turns HEAD into GET before this. A HEAD that comes here anyway must not need
        // less.
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let found = methods.iter().find(|(known, _)| known == method);
        Some(found.map_or(Need::AnyKey, |(_, need)| *need))
    }
}

/// Admits the requests of one port.
pub struct AccessGuard {
    access: Arc<AccessControl>,
    needs: Needs,
    log: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
    /// Refusals that were not logged since the last one that was.
    unlogged: AtomicU64,
    metrics: Metrics,
}

impl AccessGuard {
    /// Admits what `access` permits, to the routes of `needs`.
    #[must_use]
    pub fn new(access: Arc<AccessControl>, needs: Needs, metrics: &Metrics) -> Self {
        metrics.with(|| describe_counter!(REFUSALS, "Requests refused, by reason."));
        let log = RateLimiter::direct(Quota::per_minute(LOGGED_PER_MINUTE));
        Self { access, needs, log, unlogged: AtomicU64::new(0), metrics: metrics.clone() }
    }

    /// The principal of a request; `None` if the route needs none.
    fn check(&self, request: &HttpRequest) -> Result<Option<Arc<Principal>>, Refusal> {
        let pattern = matched_route(request);
        let Some(need) = self.needs.of(pattern.as_deref(), request.method()) else {
            tracing::error!(
                http.route = pattern,
                "the route has no declared need, so it is closed"
            );
            return Err(Refusal::Missing);
        };
        if need == Need::Nothing {
            return Ok(None);
        }
        if let Some(everyone) = self.access.everyone() {
            return Ok(Some(Arc::clone(everyone)));
        }
        let presented = presented(request, &self.access.pages)?;
        let principal = match self.access.principal(&presented)? {
            Some(principal) => principal,
            None => {
                let permits = |anonymous: &&Arc<Principal>| match need {
                    Need::Permission(permission) => anonymous.scopes().allow(permission),
                    Need::AnyKey | Need::Nothing => false,
                };
                let anonymous = self.access.anonymous().filter(permits);
                Arc::clone(anonymous.ok_or(Refusal::Missing)?)
            }
        };
        principal.count_request()?;
        need.check_principal(&principal)?;
        Ok(Some(principal))
    }

    fn record(&self, request: &HttpRequest, refusal: &Refusal) {
        let reason = refusal.reason();
        self.metrics.with(|| counter!(REFUSALS, "reason" => reason).increment(1));
        if self.log.check().is_err() {
            self.unlogged.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let key = match refusal {
            Refusal::Ended { id, .. } => Some(id.to_string()),
            _ => None,
        };
        let name = match refusal {
            Refusal::Scope { name, .. } | Refusal::Rate { name, .. } => Some(name.as_str()),
            _ => None,
        };
        tracing::info!(
            access.refused = reason,
            access.key_id = key,
            access.key_name = name,
            client.address = client_address(request).map(|address| address.to_string()),
            access.unlogged = self.unlogged.swap(0, Ordering::Relaxed),
            "refused a request"
        );
    }
}

impl Guard for AccessGuard {
    fn refuse(&self, request: &ServiceRequest) -> Option<HttpResponse> {
        match self.check(request.request()) {
            Ok(None) => None,
            Ok(Some(principal)) => {
                request.extensions_mut().insert(Admitted(principal));
                None
            }
            Err(refusal) => {
                let refusal = self.access.limit(request.request(), refusal);
                self.record(request.request(), &refusal);
                Some(refusal.error_response())
            }
        }
    }

    /// No cache may keep an answer that needed a credential, or give it to another client.
    fn finish(&self, request: &HttpRequest, headers: &mut HeaderMap) {
        if !request.extensions().contains::<Admitted>() {
            return;
        }
        // One header, because CORS reads only the first one when it adds its own.
        let own = VARIES;
        let varies = headers.get_all(VARY).chain([&own]).filter_map(|value| value.to_str().ok());
        let varies = HeaderValue::from_str(&varies.collect::<Vec<_>>().join(", "));
        headers.insert(VARY, varies.unwrap_or(own));
        let kept = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
        let no_store = match kept {
            Some(kept) if kept.contains("no-store") => return,
            // Such as `no-transform`.
            Some(kept) => HeaderValue::from_str(&format!("{kept}, no-store")),
            None => Ok(HeaderValue::from_static("no-store")),
        };
        // The header was valid before.
        let no_store = no_store.unwrap_or_else(|_| HeaderValue::from_static("no-store"));
        headers.insert(CACHE_CONTROL, no_store);
    }
}
