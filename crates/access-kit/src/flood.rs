//! How many requests from one address were refused: a client that guesses, or repeats a key that
//! has ended, is then answered only that.
//!
//! The number of limiters is fixed, so no flood of addresses needs memory. Addresses that share one
//! share its limit: that is harmless, because only requests that are refused anyway are counted. A
//! random number decides which share one, so that no client can choose its neighbours.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use service_kit::visitors::network_of;

use crate::principal::whole_seconds;
use crate::refusal::Refusal;

/// Each needs 24 bytes.
const LIMITERS: usize = 4_096;

/// The limiters of all addresses.
#[derive(Debug)]
pub(crate) struct Floods {
    random: RandomState,
    limiters: Vec<DefaultDirectRateLimiter>,
}

impl Floods {
    /// Permits this many refusals a minute for each address, and as many at once.
    pub(crate) fn new(per_minute: NonZeroU32) -> Self {
        let limiter = || RateLimiter::direct(Quota::per_minute(per_minute));
        let limiters = std::iter::repeat_with(limiter).take(LIMITERS).collect();
        Self { random: RandomState::new(), limiters }
    }

    /// Counts a refusal.
    ///
    /// # Errors
    /// [`Refusal::Flood`] if there were too many.
    pub(crate) fn count(&self, address: IpAddr) -> Result<(), Refusal> {
        let hash = self.random.hash_one(network_of(address));
        // Less than the number of limiters.
        let index = usize::try_from(hash % LIMITERS as u64).unwrap_or_default();
        self.limiters[index].check().map_err(|early| Refusal::Flood {
            retry_after: whole_seconds(early.wait_time_from(DefaultClock::default().now())),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_is_limited_and_others_are_not() {
        let floods = Floods::new(NonZeroU32::new(5).unwrap());
        let refused = |address: &str| {
            let address = address.parse().unwrap();
            (0..100).take_while(|_| floods.count(address).is_ok()).count()
        };
        assert_eq!((refused("192.0.2.1"), refused("192.0.2.1")), (5, 0));
        let Err(Refusal::Flood { retry_after }) = floods.count("192.0.2.1".parse().unwrap()) else {
            panic!("the address must be limited");
        };
        assert!((1..=12).contains(&retry_after), "{retry_after}");
        // All of a network of IPv6 are one client.
        assert_eq!((refused("2001:db8::1"), refused("2001:db8::2")), (5, 0));
        // Hardly any two addresses share a limiter.
        let free =
            (0..100).filter(|number| floods.count(Ipv4Addr::from_bits(*number).into()).is_ok());
        assert!(free.count() > 90);
    }
}
