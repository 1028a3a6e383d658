//! The simulated company: what it sells, who its customers are, and what happens when.
//!
//! Invariant: the same seed gives the same base items and users, with the same ids.

use std::f64::consts::TAU;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::{Builder, Uuid};

/// The base items, most popular first.
const CATALOGUE: [&str; 20] = [
    "City bicycle, 7 gears, refurbished",
    "Laptop, 14 inch, 16 GB memory, refurbished",
    "Touring bicycle, 24 gears, refurbished",
    "Smartphone, 128 GB, new battery",
    "Children's bicycle, 20 inch, refurbished",
    "Electric bicycle, 500 Wh, new battery",
    "Monitor, 27 inch, tested",
    "Laptop, 13 inch, 8 GB memory, refurbished",
    "Tablet, 10 inch, refurbished",
    "Cargo bicycle, refurbished",
    "Bicycle wheel, 28 inch, trued",
    "Desktop computer, 32 GB memory, refurbished",
    "Bicycle trailer for two children",
    "Headphones, new cushions",
    "Laser printer, serviced",
    "Folding bicycle, 16 inch, refurbished",
    "Docking station, tested",
    "Washing machine, 7 kg, refurbished",
    "Coffee machine, descaled, new seals",
    "Sewing machine, serviced",
];

/// The number of customers.
const USERS: usize = 200;

/// The time in the ids of base items and users.
const FOUNDED: OffsetDateTime = datetime!(2020-01-01 0:00 UTC);

/// The share of creations among all events; the rest are transfers.
const CREATIONS: f64 = 0.3;

/// The number of recent items that can be transferred.
const STOCK: usize = 1_000;

/// The busiest time of a day, in hours after midnight UTC, and how much busier than average it is.
const BUSIEST_HOUR: f64 = 13.0;
const SWING: f64 = 0.8;

#[derive(Debug)]
pub(crate) struct Company {
    pub(crate) base_items: Vec<(Uuid, &'static str)>,
    pub(crate) users: Vec<Uuid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The company receives an item.
    Creation { base_item: Uuid },
    /// The company sells an item, or a user passes it on.
    Transfer { item: Uuid, owner: Uuid },
}

/// Recent items, which can be transferred.
#[derive(Debug, Default)]
pub(crate) struct Stock(Vec<Uuid>);

impl Company {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let base_items =
            CATALOGUE.map(|description| (id_at(FOUNDED, &mut random), description)).to_vec();
        let users = (0..USERS).map(|_| id_at(FOUNDED, &mut random)).collect();
        Self { base_items, users }
    }

    /// The next event: a creation if there is no item to transfer yet.
    pub(crate) fn next(&self, stock: &Stock, random: &mut StdRng) -> Event {
        if stock.0.is_empty() || random.random_bool(CREATIONS) {
            // The smaller of two random places, so that the first base items are the most popular.
            let places = 0..self.base_items.len();
            let place = random.random_range(places.clone()).min(random.random_range(places));
            return Event::Creation { base_item: self.base_items[place].0 };
        }
        let item = stock.0[random.random_range(0..stock.0.len())];
        let owner = self.users[random.random_range(0..self.users.len())];
        Event::Transfer { item, owner }
    }
}

impl Stock {
    /// Adds an item. A full stock loses a random one.
    pub(crate) fn add(&mut self, item: Uuid, random: &mut StdRng) {
        if self.0.len() < STOCK {
            self.0.push(item);
        } else {
            let place = random.random_range(0..STOCK);
            self.0[place] = item;
        }
    }
}

/// A UUIDv7 with this time, which must not be before 1970.
pub(crate) fn id_at(time: OffsetDateTime, random: &mut StdRng) -> Uuid {
    let mut bytes = [0; 10];
    random.fill_bytes(&mut bytes);
    let milliseconds = time.unix_timestamp_nanos() / 1_000_000;
    Builder::from_unix_timestamp_millis(u64::try_from(milliseconds).unwrap_or(0), &bytes)
        .into_uuid()
}

/// A random time until the next event, if there are `rate` events a second on average over a day:
/// by day there are more, at night fewer.
pub(crate) fn wait(now: OffsetDateTime, rate: f64, random: &mut StdRng) -> Duration {
    let hour = (now - now.replace_time(time::Time::MIDNIGHT)).as_seconds_f64() / 3_600.0;
    let busyness = 1.0 + SWING * (TAU * (hour - BUSIEST_HOUR) / 24.0).cos();
    let uniform: f64 = random.random();
    // The intervals of independent events are exponentially distributed. Time never stands still.
    Duration::saturating_seconds_f64(-(1.0 - uniform).ln() / (rate * busyness))
        .max(Duration::NANOSECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_company() {
        let ids = |seed| Company::new(seed).users;
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
    }

    #[test]
    fn only_items_in_stock_are_transferred() {
        let (company, mut random) = (Company::new(1), StdRng::seed_from_u64(1));
        let mut stock = Stock::default();
        assert!(matches!(company.next(&stock, &mut random), Event::Creation { .. }));
        let item = Uuid::now_v7();
        stock.add(item, &mut random);
        let events: Vec<_> = (0..1_000).map(|_| company.next(&stock, &mut random)).collect();
        let transfers = events.iter().filter_map(|event| match event {
            Event::Transfer { item, .. } => Some(*item),
            Event::Creation { .. } => None,
        });
        let transferred: Vec<Uuid> = transfers.collect();
        assert!((600..800).contains(&transferred.len()), "{}", transferred.len());
        assert!(transferred.iter().all(|id| *id == item));
    }

    #[test]
    fn the_stock_is_bounded() {
        let mut random = StdRng::seed_from_u64(1);
        let mut stock = Stock::default();
        for _ in 0..2 * STOCK {
            stock.add(Uuid::now_v7(), &mut random);
        }
        assert_eq!(stock.0.len(), STOCK);
    }

    #[test]
    fn the_rate_is_the_average_of_a_day_that_is_busier_at_noon() {
        let midnight = datetime!(2026-11-23 0:00 UTC);
        let mut random = StdRng::seed_from_u64(1);
        let mut hours = [0_u32; 24];
        let mut now = midnight;
        loop {
            now += wait(now, 0.5, &mut random);
            if now >= midnight + Duration::DAY {
                break;
            }
            hours[usize::from(now.hour())] += 1;
        }
        let events: u32 = hours.iter().sum();
        assert!(events.abs_diff(43_200) < 1_000, "{events}");
        assert!(hours[13] > 3 * hours[1], "{hours:?}");
    }
}
