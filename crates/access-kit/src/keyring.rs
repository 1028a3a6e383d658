//! The keyring: all keys that are or were valid, as one version of the table `access_key`.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::key::{Key, KeyHash, KeyId};
use crate::principal::{Identity, Limits, Principal, Rate};
use crate::refusal::{Ending, Refusal};
use crate::scope::Scopes;

/// The maximum number of keys that are valid at the same time. A key needs about 400 bytes in each
/// service.
pub const MAX_KEYS: usize = 10_000;

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Names the key in rows and records, for ever.
    pub number: i32,
    /// The id in the key's text.
    pub id: KeyId,
    /// The name that its maker gave it.
    pub name: String,
    /// The hash of the key.
    pub hash: KeyHash,
    /// What it may do. A scope that this release does not know permits nothing.
    pub scopes: Vec<String>,
    /// When it ends by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was or will be revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// How many requests it may send in a second; `None` if that is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<NonZeroU32>,
    /// How many streams it may hold; `None` for the share of every key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<NonZeroU32>,
}

/// All keys.
#[derive(Debug, Default)]
pub struct Keyring(HashMap<KeyId, Entry>);

#[derive(Debug)]
struct Entry {
    hash: KeyHash,
    ended_at: Option<OffsetDateTime>,
    principal: Arc<Principal>,
    /// Whether it was used since the last look.
    used: AtomicBool,
}

impl Entry {
    /// Why the key is not valid at this moment.
    fn ending(&self, now: OffsetDateTime) -> Option<Ending> {
        let is_over = |end: Option<OffsetDateTime>| end.is_some_and(|end| end <= now);
        if is_over(self.ended_at) {
            return Some(Ending::Revoked);
        }
        is_over(self.principal.until()).then_some(Ending::Expired)
    }
}

impl FromIterator<KeyRecord> for Keyring {
    fn from_iter<I: IntoIterator<Item = KeyRecord>>(records: I) -> Self {
        let entry = |record: KeyRecord| {
            let scopes: Scopes =
                record.scopes.iter().filter_map(|scope| scope.parse().ok()).collect();
            let until = [record.expires_at, record.ended_at].into_iter().flatten().min();
            let KeyRecord { number, id, name, hash, ended_at, .. } = record;
            let identity = Identity::Key { number, id, name };
            let limits = Limits {
                rate: record.requests_per_second.map(|rate| Arc::new(Rate::new(rate))),
                streams: record.streams.and_then(|most| usize::try_from(most.get()).ok()),
            };
            let principal = Arc::new(Principal { identity, scopes, until, limits });
            (id, Entry { hash, ended_at, principal, used: AtomicBool::new(false) })
        };
        Self(records.into_iter().map(entry).collect())
    }
}

impl Keyring {
    /// The principal of a key that is valid at this moment.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::Ended`].
    pub(crate) fn find(&self, key: &Key, now: OffsetDateTime) -> Result<Arc<Principal>, Refusal> {
        // The id is no secret, so only the hash is compared in constant time.
        let entry = self.0.get(&key.id()).filter(|entry| entry.hash == key.hash());
        let entry = entry.ok_or(Refusal::Unknown)?;
        match entry.ending(now) {
            Some(why) => Err(Refusal::Ended { id: key.id(), why }),
            None => {
                // Without the look, each request would take the entry from the other threads.
                if !entry.used.load(Ordering::Relaxed) {
                    entry.used.store(true, Ordering::Relaxed);
                }
                Ok(Arc::clone(&entry.principal))
            }
        }
    }

    /// Why a key that was valid before is not any more.
    pub(crate) fn ending(&self, id: KeyId, now: OffsetDateTime) -> Option<Ending> {
        self.0.get(&id).map_or(Some(Ending::Revoked), |entry| entry.ending(now))
    }

    /// When a key ends, as far as that is known.
    pub(crate) fn until(&self, id: KeyId) -> Option<OffsetDateTime> {
        self.0.get(&id)?.principal.until()
    }

    /// Notes that keys were used elsewhere.
    pub(crate) fn mark_used(&self, numbers: &[i32]) {
        let numbers: HashSet<_> = numbers.iter().copied().collect();
        let is_one = |entry: &&Entry| {
            entry.principal.number().is_some_and(|number| numbers.contains(&number))
        };
        self.0.values().filter(is_one).for_each(|entry| entry.used.store(true, Ordering::Relaxed));
    }

    /// The numbers of the keys that were found since the last call.
    pub(crate) fn take_used(&self) -> Vec<i32> {
        let used = self.0.values().filter(|entry| entry.used.swap(false, Ordering::Relaxed));
        used.filter_map(|entry| entry.principal.number()).collect()
    }

    /// Takes over which keys were used and how many requests they have sent, from the keyring that
    /// this one replaces.
    pub(crate) fn keep_uses(&mut self, old: &Self) {
        for (id, entry) in &mut self.0 {
            let Some(old) = old.0.get(id) else { continue };
            *entry.used.get_mut() |= old.used.load(Ordering::Relaxed);
            let rate = |entry: &Entry| entry.principal.limits.rate.clone();
            let (known, new) = (rate(old), rate(entry));
            if known.as_ref().map(|rate| rate.per_second) == new.map(|rate| rate.per_second)
                && let Some(principal) = Arc::get_mut(&mut entry.principal)
            {
                principal.limits.rate = known;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-26 12:00 UTC);

    fn record(key: &Key) -> KeyRecord {
        KeyRecord {
            number: 7,
            id: key.id(),
            name: "billing".to_owned(),
            hash: key.hash(),
            scopes: vec!["ingest:write".to_owned(), "of-a-newer:release".to_owned()],
            expires_at: None,
            ended_at: None,
            requests_per_second: None,
            streams: None,
        }
    }

    /// A key that is changed often would otherwise never reach its limit.
    #[test]
    fn a_new_keyring_forgets_no_request() {
        let key = Key::generate();
        let keyring = |rate| {
            let requests_per_second = NonZeroU32::new(rate);
            Keyring::from_iter([KeyRecord { requests_per_second, ..record(&key) }])
        };
        let sent = |keyring: &Keyring| {
            let principal = keyring.find(&key, NOW).unwrap();
            (0..100).take_while(|_| principal.count_request().is_ok()).count()
        };
        let first = keyring(3);
        assert_eq!((sent(&first), sent(&first)), (3, 0));
        let mut second = keyring(3);
        second.keep_uses(&first);
        assert_eq!(sent(&second), 0);
        let mut changed = keyring(5);
        changed.keep_uses(&second);
        assert_eq!(sent(&changed), 5);
        assert_eq!(sent(&keyring(0)), 100);
    }

    #[test]
    fn a_key_is_found_by_its_whole_text() {
        let [key, other] = [Key::generate(), Key::generate()];
        let keyring = Keyring::from_iter([record(&key)]);
        let principal = keyring.find(&key, NOW).unwrap();
        assert_eq!((principal.number(), principal.name()), (Some(7), "billing"));
        let scopes: Vec<_> = principal.scopes().iter().map(ToString::to_string).collect();
        assert_eq!(scopes, ["ingest:write"]);
        assert_eq!(keyring.find(&other, NOW).unwrap_err(), Refusal::Unknown);
        // The same id with another secret.
        let stolen_id = Keyring::from_iter([KeyRecord { hash: other.hash(), ..record(&key) }]);
        assert_eq!(stolen_id.find(&key, NOW).unwrap_err(), Refusal::Unknown);
        assert_eq!(Keyring::default().find(&key, NOW).unwrap_err(), Refusal::Unknown);
    }

    #[test]
    fn a_key_ends_at_its_earliest_end() {
        let key = Key::generate();
        let [soon, later] = [NOW + Duration::SECOND, NOW + Duration::HOUR];
        for (expires_at, ended_at, why) in [
            (Some(soon), None, Ending::Expired),
            (Some(soon), Some(later), Ending::Expired),
            (Some(later), Some(soon), Ending::Revoked),
            (None, Some(soon), Ending::Revoked),
        ] {
            let keyring = Keyring::from_iter([KeyRecord { expires_at, ended_at, ..record(&key) }]);
            assert_eq!(keyring.find(&key, NOW).unwrap().until(), Some(soon));
            assert_eq!(keyring.ending(key.id(), NOW), None);
            let refused = keyring.find(&key, soon).unwrap_err();
            assert_eq!(refused, Refusal::Ended { id: key.id(), why });
            assert_eq!(keyring.ending(key.id(), soon), Some(why));
        }
        // A key whose row is gone.
        assert_eq!(Keyring::default().ending(key.id(), NOW), Some(Ending::Revoked));
    }

    #[test]
    fn a_record_survives_json() {
        let record = KeyRecord { expires_at: Some(NOW), ..record(&Key::generate()) };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<KeyRecord>(&text).unwrap(), record);
    }
}
