//! Decides who a request is from. All threads of a service share one [`AccessControl`].
//!
//! Invariants:
//! - A credential that is presented and not valid is an error. It is never taken for none.
//! - Without a keyring, nothing that presents a credential is admitted, and none is answered
//!   that its key is wrong, because a client must not throw its key away.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use service_kit::host::client_address;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::credential::{Pages, Presented};
use crate::document::Document;
use crate::flood::Floods;
use crate::key::Key;
use crate::keyring::{KeyRecord, Keyring};
use crate::principal::{Identity, Limits, Principal};
use crate::refusal::{Ending, Refusal};
use crate::scope::Scopes;
use crate::settings::{AccessMode, AccessSettings, REFUSALS_PER_MINUTE};

/// Whether a principal that was admitted earlier still is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is, and that has no end.
    Endless,
    /// It is, for this long unless it is revoked.
    Left(Duration),
    /// It is not any more.
    Ended(Ending),
    /// This service has been cut off from the list of keys for too long.
    Unknown,
}

/// After this time without a confirmation, a keyring of a lower version is accepted.
const RESTORE_TIME: Duration = Duration::from_secs(60);

const OPEN_WARNING: &str =
    "access.mode is \"open\": every program and every user of this machine may do everything";

/// Who may use a service, and what each may do.
#[derive(Debug)]
pub struct AccessControl {
    mode: AccessMode,
    /// Clients without a credential, if they may do anything.
    anonymous: Option<Arc<Principal>>,
    everyone: Arc<Principal>,
    offline: Duration,
    floods: Floods,
    pub(crate) pages: Pages,
    keys: watch::Sender<Keys>,
}

/// The keyring, and how old it is.
#[derive(Debug, Clone, Default)]
struct Keys {
    keyring: Option<Arc<Keyring>>,
    /// The keyring as other services receive it.
    document: Option<Document>,
    /// When it was last known to be the newest one.
    confirmed: Option<Instant>,
}

impl AccessControl {
    /// Without a keyring yet. The pages of these origins may use their cookies.
    #[must_use]
    pub fn new(settings: &AccessSettings, pages: Pages) -> Self {
        let principal = |identity, scopes| {
            Arc::new(Principal { identity, scopes, until: None, limits: Limits::default() })
        };
        let anonymous: Scopes = settings.anonymous_scopes.iter().cloned().collect();
        let may_nothing = anonymous.iter().next().is_none();
        if settings.mode == AccessMode::Open {
            tracing::warn!("{OPEN_WARNING}");
        }
        Self {
            mode: settings.mode,
            anonymous: (!may_nothing).then(|| principal(Identity::Anonymous, anonymous)),
            everyone: principal(Identity::Everyone, Scopes::all()),
            offline: settings.offline(),
            floods: Floods::new(settings.refusals_per_minute),
            pages,
            keys: watch::Sender::default(),
        }
    }

    /// For a service that admits nothing to data of its own: it passes the keyring on, or only asks
    /// it whether a key is valid. It goes on with the last keyring for as long as it is cut off.
    #[must_use]
    pub fn for_followers() -> Self {
        let settings = AccessSettings {
            mode: AccessMode::Keys,
            anonymous_scopes: Vec::new(),
            offline_seconds: u32::MAX,
            refusals_per_minute: REFUSALS_PER_MINUTE,
        };
        Self::new(&settings, Pages::default())
    }

    /// Whether requests need no credential.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.mode == AccessMode::Open
    }

    /// What everyone should know of a service that requests need no credential for.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        self.is_open().then_some(OPEN_WARNING)
    }

    /// Replaces the keyring by one that the database had at `moment`.
    pub fn replace(&self, version: i64, records: Vec<KeyRecord>, moment: Instant) {
        let document = Document::new(version, &records);
        let mut keyring: Keyring = records.into_iter().collect();
        self.keys.send_modify(|keys| {
            if let Some(old) = &keys.keyring {
                keyring.keep_uses(old);
            }
            let keyring = Some(Arc::new(keyring));
            *keys = Keys { keyring, document: Some(document), confirmed: Some(moment) };
        });
    }

    /// Whether a keyring of this version, from another service, may replace the own one. That
    /// service may have been cut off, and then an older keyring would make revoked keys valid
    /// again. A lower version is right only after the database was restored from a backup: then no
    /// service confirms the own one any more.
    pub(crate) fn accepts(&self, version: i64) -> bool {
        let keys = self.keys.borrow();
        let own = keys.document.as_ref().map(|document| document.version);
        let forgotten = keys.confirmed.is_none_or(|moment| moment.elapsed() > RESTORE_TIME);
        own.is_none_or(|own| version >= own) || forgotten
    }

    /// Notes that the keyring was still the newest at `moment`.
    pub fn confirm(&self, moment: Instant) {
        self.keys.send_if_modified(|keys| {
            keys.confirmed = keys.confirmed.max(Some(moment));
            false
        });
    }

    /// The keyring that may be used now: none before the first one, and none once it has not been
    /// confirmed for `access.offline_seconds`.
    fn keyring(&self) -> Option<Arc<Keyring>> {
        let keys = self.keys.borrow();
        let age = keys.confirmed?.elapsed();
        keys.keyring.clone().filter(|_| age <= self.offline)
    }

    /// Whether credentials can be checked, and otherwise why not.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        if self.is_open() || self.keyring().is_some() {
            return None;
        }
        Some("the list of keys cannot be reached, so no key can be checked")
    }

    /// The principal of what a request presents; `None` if it presents nothing.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Ended`] and [`Refusal::NoKeyring`].
    pub(crate) fn principal(
        &self,
        presented: &Presented<'_>,
    ) -> Result<Option<Arc<Principal>>, Refusal> {
        let text = match presented {
            Presented::Nothing => return Ok(None),
            Presented::Unreadable => None,
            Presented::Text(text) => Some(*text),
        };
        let key: Option<Key> = text.and_then(|text| text.parse().ok());
        match key {
            Some(key) => self.check_key(&key).map(Some),
            None if self.keyring().is_none() => Err(Refusal::NoKeyring),
            None => Err(Refusal::Unknown),
        }
    }

    /// Checks a key that does not come as the credential of a request.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Ended`] and [`Refusal::NoKeyring`].
    pub fn check_key(&self, key: &Key) -> Result<Arc<Principal>, Refusal> {
        self.keyring().ok_or(Refusal::NoKeyring)?.find(key, OffsetDateTime::now_utc())
    }

    /// What a client is answered that is refused: after too many refusals of its address, only
    /// that. A client whose credential is valid, or cannot be checked now, always gets the reason.
    #[must_use]
    pub fn limit(&self, request: &HttpRequest, refusal: Refusal) -> Refusal {
        let is_valid = matches!(
            refusal,
            Refusal::Scope { .. }
                | Refusal::Rate { .. }
                | Refusal::Share { .. }
                | Refusal::NoKeyring
        );
        match client_address(request).filter(|_| !is_valid).map(|client| self.floods.count(client))
        {
            Some(Err(flood)) => flood,
            Some(Ok(())) | None => refusal,
        }
    }

    /// What clients without a credential are, if they may do anything.
    pub(crate) const fn anonymous(&self) -> Option<&Arc<Principal>> {
        self.anonymous.as_ref()
    }

    /// What all clients are, if requests need no credential.
    pub(crate) fn everyone(&self) -> Option<&Arc<Principal>> {
        self.is_open().then_some(&self.everyone)
    }

    /// Whether a principal that was admitted earlier still is.
    #[must_use]
    pub fn standing(&self, principal: &Principal) -> Standing {
        let Identity::Key { id, .. } = principal.identity() else { return Standing::Endless };
        let Some(keyring) = self.keyring() else { return Standing::Unknown };
        let now = OffsetDateTime::now_utc();
        if let Some(ending) = keyring.ending(*id, now) {
            return Standing::Ended(ending);
        }
        let left = |until: OffsetDateTime| (until - now).try_into().unwrap_or_default();
        keyring.until(*id).map_or(Standing::Endless, |until| Standing::Left(left(until)))
    }

    /// Checks that a principal which was admitted earlier still is, before more is done for it.
    ///
    /// # Errors
    /// [`Refusal::Ended`] and [`Refusal::NoKeyring`].
    pub fn check_again(&self, principal: &Principal) -> Result<(), Refusal> {
        match (self.standing(principal), principal.identity()) {
            (Standing::Ended(why), Identity::Key { id, .. }) => {
                Err(Refusal::Ended { id: *id, why })
            }
            (Standing::Unknown, _) => Err(Refusal::NoKeyring),
            _ => Ok(()),
        }
    }

    /// How long ago the keyring was last known to be the newest; `None` before the first one.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.keys.borrow().confirmed.map(|confirmed| confirmed.elapsed())
    }

    /// Waits until the keyring, as other services receive it, is not the one with this tag.
    pub(crate) async fn other_document(&self, tag: Option<&str>) -> Document {
        let mut keys = self.keys.subscribe();
        loop {
            let is_other = |document: &&Document| Some(document.tag.as_str()) != tag;
            if let Some(document) = keys.borrow_and_update().document.as_ref().filter(is_other) {
                return document.clone();
            }
            if keys.changed().await.is_err() {
                // Not while `self` has the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Notes that keys were used: at services that follow this one, or before a report that failed.
    pub fn mark_used(&self, numbers: &[i32]) {
        if let Some(keyring) = &self.keys.borrow().keyring {
            keyring.mark_used(numbers);
        }
    }

    /// Calls `react` after each change of the keyring.
    pub async fn on_change(&self, mut react: impl FnMut()) {
        let mut keys = self.keys.subscribe();
        // Fails only without the sender, which `self` has.
        while keys.changed().await.is_ok() {
            react();
        }
    }

    /// The numbers of the keys that were used since the last call.
    #[must_use]
    pub fn take_used(&self) -> Vec<i32> {
        self.keys.borrow().keyring.as_ref().map(|keyring| keyring.take_used()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> AccessControl {
        let settings = AccessSettings {
            mode: AccessMode::Keys,
            anonymous_scopes: vec![],
            offline_seconds: 5,
            refusals_per_minute: REFUSALS_PER_MINUTE,
        };
        AccessControl::new(&settings, Pages::default())
    }

    fn record(key: &Key) -> KeyRecord {
        KeyRecord {
            number: 1,
            id: key.id(),
            name: "a".to_owned(),
            hash: key.hash(),
            scopes: vec!["statistics:read".to_owned()],
            expires_at: None,
            ended_at: None,
            requests_per_second: None,
            streams: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_keyring_is_used_for_a_while_and_a_key_is_then_not_called_wrong() {
        let (control, key) = (control(), Key::generate());
        let present = |text: &str| {
            let found = control.principal(&Presented::Text(text));
            found.map(|principal| principal.and_then(|principal| principal.number()))
        };
        assert_eq!(present(key.expose()), Err(Refusal::NoKeyring));
        control.replace(1, vec![record(&key)], Instant::now());
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(present(key.expose()), Ok(Some(1)));
        control.confirm(Instant::now());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(present(key.expose()), Ok(Some(1)));
        let principal = control.principal(&Presented::Text(key.expose())).unwrap().unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        for text in [key.expose(), "x"] {
            assert_eq!(present(text), Err(Refusal::NoKeyring));
        }
        assert_eq!(control.standing(&principal), Standing::Unknown);
        assert!(control.problem().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_cut_off_brings_no_revoked_key_back() {
        let control = control();
        assert!(control.accepts(1));
        control.replace(7, vec![], Instant::now());
        assert!(control.accepts(7) && control.accepts(8) && !control.accepts(6));
        // After a restore of the database, no service confirms the keyring any more.
        tokio::time::advance(RESTORE_TIME).await;
        assert!(!control.accepts(6));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(control.accepts(6));
    }

    #[tokio::test]
    async fn the_uses_of_keys_outlast_a_change_of_the_keyring() {
        let (control, key) = (control(), Key::generate());
        control.replace(1, vec![record(&key)], Instant::now());
        control.principal(&Presented::Text(key.expose())).unwrap();
        control.replace(2, vec![record(&key)], Instant::now());
        assert_eq!(control.take_used(), [1]);
        assert!(control.take_used().is_empty());
        control.mark_used(&[1, 2]);
        assert_eq!(control.take_used(), [1]);
    }
}
