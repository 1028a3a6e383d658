//! The company: what it deals in, who its customers are, and what happens next.
//!
//! Invariant: the same seed gives the same base items and users, with the same ids.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::{Builder, Uuid};

/// What it deals in, the more often asked for the earlier.
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

/// How many customers it has.
const USERS: usize = 200;

/// When it was founded: the time in the ids of its base items and users.
const FOUNDED: OffsetDateTime = datetime!(2020-01-01 0:00 UTC);

/// How often something new comes in, of all that happens; the rest are transfers. So an item changes hands a little
/// more than twice on average.
const CREATIONS: f64 = 0.3;

/// How many of the newest items are remembered for transfers.
const STOCK: usize = 1_000;

/// A company of a seed.
#[derive(Debug)]
pub(crate) struct Company {
    pub(crate) base_items: Vec<(Uuid, &'static str)>,
    pub(crate) users: Vec<Uuid>,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    /// An item of this base item comes in.
    Creation { base_item: Uuid },
    /// An item passes to a user.
    Transfer { item: Uuid, owner: Uuid },
}

/// Items that can be transferred.
#[derive(Debug, Default)]
pub(crate) struct Stock(Vec<Uuid>);

impl Company {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let base_items = CATALOGUE.map(|description| (id_at(FOUNDED, &mut random), description)).to_vec();
        let users = (0..USERS).map(|_| id_at(FOUNDED, &mut random)).collect();
        Self { base_items, users }
    }

    /// What happens next; where nothing can be transferred yet, an item comes in.
    pub(crate) fn next(&self, stock: &Stock, random: &mut StdRng) -> Happening {
        if stock.0.is_empty() || random.random_bool(CREATIONS) {
            // The smaller of two random places: the earlier, the likelier.
            let places = 0..self.base_items.len();
            let place = random.random_range(places.clone()).min(random.random_range(places));
            return Happening::Creation { base_item: self.base_items[place].0 };
        }
        let item = stock.0[random.random_range(0..stock.0.len())];
        let owner = self.users[random.random_range(0..self.users.len())];
        Happening::Transfer { item, owner }
    }
}

impl Stock {
    /// Remembers an item, in the place of any other where it is full.
    pub(crate) fn add(&mut self, item: Uuid, random: &mut StdRng) {
        if self.0.len() < STOCK {
            self.0.push(item);
        } else {
            let place = random.random_range(0..STOCK);
            self.0[place] = item;
        }
    }
}

/// An id of version 7, of a time after 1970 and with these dice.
pub(crate) fn id_at(time: OffsetDateTime, random: &mut StdRng) -> Uuid {
    let mut bytes = [0; 10];
    random.fill_bytes(&mut bytes);
    let milliseconds = time.unix_timestamp_nanos() / 1_000_000;
    Builder::from_unix_timestamp_millis(u64::try_from(milliseconds).unwrap_or(0), &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_company() {
        let ids = |seed| Company::new(seed).users;
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
    }

    #[test]
    fn only_what_is_in_stock_is_transferred() {
        let (company, mut random) = (Company::new(1), StdRng::seed_from_u64(1));
        let mut stock = Stock::default();
        assert!(matches!(company.next(&stock, &mut random), Happening::Creation { .. }));
        let item = Uuid::now_v7();
        stock.add(item, &mut random);
        let happenings: Vec<_> = (0..1_000).map(|_| company.next(&stock, &mut random)).collect();
        let transfers = happenings.iter().filter_map(|happening| match happening {
            Happening::Transfer { item, .. } => Some(*item),
            Happening::Creation { .. } => None,
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
}
