//! How much of what all clients share one key may hold at the same time, such as streams or places
//! for uploads: at most a quarter, so that one client of many cannot keep the others out.
//!
//! Only keys have shares. Clients without a key look all the same here; the number of
//! connections from one address is bounded elsewhere ([`service_kit::visitors`]).

use std::sync::Arc;
use std::time::Duration;

use service_kit::tally::Tally;
use tokio::sync::Notify;

use crate::principal::{Identity, Principal};
use crate::refusal::Refusal;

/// The part of the places that one key may hold.
const PART: usize = 4;

/// The places of one kind that keys hold.
#[derive(Debug)]
pub struct Shares {
    what: &'static str,
    most: usize,
    /// By the number of the key.
    held: Tally<i32>,
    /// Wakes those that wait for a place of their key.
    released: Notify,
}

/// A place, which is given back when this is dropped.
#[derive(Debug)]
pub struct Share(Option<(Arc<Shares>, i32)>);

impl Shares {
    /// Of this many places, each key may hold a quarter, and at least one. `what` is their name in
    /// the plural, for people.
    #[must_use]
    pub fn of(places: usize, what: &'static str) -> Arc<Self> {
        let most = (places / PART).max(1);
        Arc::new(Self { what, most, held: Tally::default(), released: Notify::new() })
    }

    /// Takes a place now. `own` is how many this key may hold, if that is not a quarter.
    ///
    /// # Errors
    /// [`Refusal::Share`] if the key holds its share already.
    pub fn take(
        self: &Arc<Self>,
        principal: &Principal,
        own: Option<usize>,
    ) -> Result<Share, Refusal> {
        let Identity::Key { number, name, .. } = principal.identity() else {
            return Ok(Share(None));
        };
        let most = own.unwrap_or(self.most);
        if !self.held.take(*number, most) {
            return Err(Refusal::Share { name: name.clone(), most, what: self.what });
        }
        Ok(Share(Some((Arc::clone(self), *number))))
    }

    /// Takes a place, and waits for one of this key for at most `timeout`.
    ///
    /// # Errors
    /// [`Refusal::Share`] if there is none until then.
    pub async fn wait(
        self: &Arc<Self>,
        principal: &Principal,
        timeout: Duration,
    ) -> Result<Share, Refusal> {
        let first = self.take(principal, None);
        if first.is_ok() {
            return first;
        }
        let freed = async {
            loop {
                let mut released = std::pin::pin!(self.released.notified());
                // Before the look, so that a place that is given back after it is not missed.
                released.as_mut().enable();
                if let Ok(share) = self.take(principal, None) {
                    return share;
                }
                released.await;
            }
        };
        tokio::time::timeout(timeout, freed).await.or(first)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((shares, number)) = &self.0 else { return };
        shares.held.give_back(number);
        shares.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::key::Key;
    use crate::principal::Limits;
    use crate::scope::Scopes;

    fn principal(identity: Identity) -> Principal {
        Principal { identity, scopes: Scopes::all(), until: None, limits: Limits::default() }
    }

    fn key(number: i32) -> Principal {
        principal(Identity::Key { number, id: Key::generate().id(), name: format!("key-{number}") })
    }

    #[test]
    fn a_key_holds_at_most_a_quarter_and_others_are_not_kept_out() {
        let shares = Shares::of(11, "streams");
        let [one, other] = [key(1), key(2)];
        let held = [(); 2].map(|()| shares.take(&one, None).unwrap());
        let refused = shares.take(&one, None).unwrap_err();
        let expected = Refusal::Share { name: "key-1".to_owned(), most: 2, what: "streams" };
        assert_eq!(refused, expected);
        let _others = [(); 2].map(|()| shares.take(&other, None).unwrap());
        drop(held);
        let _again = shares.take(&one, None).unwrap();
        // One of few places, and a number of its own.
        assert!(Shares::of(1, "").take(&one, None).is_ok());
        let _third = [(); 2].map(|()| shares.take(&one, Some(3)).unwrap());
        shares.take(&one, Some(3)).unwrap_err();
        for identity in [Identity::Anonymous, Identity::Everyone] {
            let clients: Vec<_> =
                (0..20).map(|_| shares.take(&principal(identity.clone()), None).unwrap()).collect();
            assert_eq!(clients.len(), 20);
        }
    }

    #[test]
    fn nothing_is_kept_of_a_key_without_places() {
        let shares = Shares::of(8, "uploads");
        for number in 0..1_000 {
            let _place = shares.take(&key(number), None).unwrap();
        }
        assert!(shares.held.is_empty());
    }

    /// A place may be given back between the look and the wait.
    #[tokio::test(start_paused = true)]
    async fn a_key_waits_for_a_place_of_its_own() {
        let shares = Shares::of(4, "reads");
        let (one, second) = (key(1), Duration::from_secs(1));
        let held = shares.take(&one, None).unwrap();
        assert!(shares.wait(&one, second).await.is_err());
        let mut waiting = std::pin::pin!(shares.wait(&one, second));
        assert!(waiting.as_mut().now_or_never().is_none());
        let other = shares.take(&key(2), None).unwrap();
        drop(other);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        assert!(waiting.now_or_never().unwrap().is_ok());
    }
}
