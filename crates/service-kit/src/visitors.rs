//! The number of connections from one address, so that one client of many cannot take all of them.
//!
//! Invariant: an address has at most as many connections as it may have.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use metrics::{counter, describe_counter};

use crate::host::Network;
use crate::metrics::Metrics;
use crate::settings::sections::HttpSettings;
use crate::tally::Tally;

/// The setting that bounds them.
const SETTING: &str = "http.max_connections_per_address";

const REFUSED: &str = "http_server_connections_refused_total";

/// How many of the refused connections are logged in a minute.
const LOGGED_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN;

/// The bits of an IPv6 address that name a network; a client chooses the others as it likes (RFC
/// 7421).
const IPV6_NETWORK_BITS: u32 = 64;

/// The addresses that have connections to a port. Clones share them.
#[derive(Clone)]
pub struct Visitors(Option<Arc<Counts>>);

struct Counts {
    most: usize,
    /// Proxies, whose connections are those of many clients.
    exempt: Vec<Network>,
    connections: Tally<IpAddr>,
    log: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
    metrics: Metrics,
}

/// A connection that counts until this is dropped.
#[derive(Default)]
pub(crate) struct Visit(Option<(Arc<Counts>, IpAddr)>);

impl Visitors {
    /// Bounds the connections as the settings say.
    #[must_use]
    pub fn new(settings: &HttpSettings, metrics: &Metrics) -> Self {
        metrics.with(|| {
            describe_counter!(REFUSED, "Connections closed because their address had too many.");
            counter!(REFUSED).increment(0);
        });
        Self(Some(Arc::new(Counts {
            most: settings.max_connections_per_address.get(),
            exempt: settings.trusted_proxies.clone(),
            connections: Tally::default(),
            log: RateLimiter::direct(Quota::per_minute(LOGGED_PER_MINUTE)),
            metrics: metrics.clone(),
        })))
    }

    /// Bounds nothing, for a port that only other services and operators' tools can use.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self(None)
    }

    /// Counts a connection. `None` if its address has too many: then it must be closed.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Visit> {
        let Some(counts) = &self.0 else { return Some(Visit::default()) };
        let address = address.to_canonical();
        if counts.exempt.iter().any(|network| network.contains(address)) {
            return Some(Visit::default());
        }
        let client = network_of(address);
        if counts.connections.take(client, counts.most) {
            return Some(Visit(Some((Arc::clone(counts), client))));
        }
        counts.refused(address);
        None
    }
}

impl Counts {
    fn refused(&self, address: IpAddr) {
        self.metrics.with(|| counter!(REFUSED).increment(1));
        if self.log.check().is_ok() {
            tracing::warn!(
                client.address = %address,
                "closed a connection, because its address has {} already. If it is a proxy, add it \
                 to http.trusted_proxies; otherwise see {SETTING}",
                self.most
            );
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some((counts, client)) = &self.0 {
            counts.connections.give_back(client);
        }
    }
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Visit").field(&self.0.as_ref().map(|(_, client)| client)).finish()
    }
}

/// What counts as one client: an IPv4 address, or a network of IPv6.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let hosts = 128 - IPV6_NETWORK_BITS;
            Ipv6Addr::from_bits(address.to_bits() >> hosts << hosts).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitors(most: usize, proxies: &[&str]) -> Visitors {
        Visitors(Some(Arc::new(Counts {
            most,
            exempt: proxies.iter().map(|network| network.parse().unwrap()).collect(),
            connections: Tally::default(),
            log: RateLimiter::direct(Quota::per_minute(LOGGED_PER_MINUTE)),
            metrics: Metrics::new().unwrap(),
        })))
    }

    #[test]
    fn an_address_has_a_bounded_number_of_connections() {
        let visitors = visitors(2, &["10.0.0.0/8"]);
        let admit = |address: &str| visitors.admit(address.parse().unwrap());
        let first = admit("192.0.2.1").unwrap();
        let _second = admit("::ffff:192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        let _other = admit("192.0.2.2").unwrap();
        drop(first);
        let _third = admit("192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        // A client can have any address of its network.
        let _network = ["2001:db8::1", "2001:db8::2:3"].map(|address| admit(address).unwrap());
        assert!(admit("2001:db8::4").is_none());
        assert!(admit("2001:db8:0:1::4").is_some());
        let _proxied: Vec<_> = (0..10).map(|_| admit("10.1.2.3").unwrap()).collect();
    }

    #[test]
    fn nothing_is_kept_of_an_address_without_connections() {
        let visitors = visitors(1, &[]);
        for number in 0..1_000 {
            let _visit = visitors.admit(std::net::Ipv4Addr::from_bits(number).into()).unwrap();
        }
        assert!(visitors.0.unwrap().connections.is_empty());
    }
}
