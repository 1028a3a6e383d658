//! The simulated company: what it sells, who its customers are, and what happens when.

use std::f64::consts::TAU;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// The base items, most popular first.
const CATALOGUE: [&str; 10] = [
    "City bicycle, 7 gears, refurbished",
    "Laptop, 14 inch, 16 GB memory, refurbished",
    "Touring bicycle, 24 gears, refurbished",
    "Smartphone, 128 GB, new battery",
    "Children's bicycle, 20 inch, refurbished",
    "Monitor, 27 inch, tested",
    "Cargo bicycle, refurbished",
    "Headphones, new cushions",
    "Washing machine, 7 kg, refurbished",
    "Sewing machine, serviced",
];

/// The number of customers.
const USERS: usize = 200;

/// The share of creations among all events; the rest are transfers.
const CREATIONS: f64 = 0.3;

/// The number of recent items that can be transferred.
const STOCK: usize = 1_000;

/// The busiest time of a day, in hours after midnight UTC, and how much busier than average it is.
const BUSIEST_HOUR: f64 = 13.0;
const SWING: f64 = 0.8;

pub(crate) struct Company {
    /// Its events until this time have happened.
    pub(crate) now: OffsetDateTime,
    /// Recent items, which can be transferred.
    stock: Vec<Uuid>,
    random: StdRng,
}

/// New rows of ingest-api.
#[derive(Default)]
pub(crate) struct Events {
    pub(crate) items: Vec<Value>,
    pub(crate) transfers: Vec<Value>,
}

/// The same ids in each run, so that these rows are stored once.
fn fixed_id(number: usize) -> Uuid {
    Uuid::from_u128(0x016f_5e66_e800_7000_8000_0000_0000_0000 + number as u128)
}

pub(crate) fn base_items() -> Vec<Value> {
    let rows = CATALOGUE.iter().enumerate();
    rows.map(|(n, description)| json!({ "id": fixed_id(n), "description": description })).collect()
}

pub(crate) fn users() -> Vec<Value> {
    (0..USERS).map(|n| json!({ "id": fixed_id(n) })).collect()
}

impl Company {
    pub(crate) const fn new(now: OffsetDateTime, random: StdRng) -> Self {
        Self { now, stock: Vec::new(), random }
    }

    /// The next events: those until `until`, but at most `max`. On average over a day there are
    /// `rate` events a second.
    pub(crate) fn events(&mut self, rate: f64, until: OffsetDateTime, max: usize) -> Events {
        let mut events = Events::default();
        while events.items.len() + events.transfers.len() < max {
            self.now += time_to_next(self.now, rate, &mut self.random);
            if self.now > until {
                // The time to the next event does not depend on when the last one was.
                self.now = until;
                break;
            }
            let time = self.now.format(&Rfc3339).unwrap_or_default();
            let id = Uuid::now_v7();
            if self.stock.is_empty() || self.random.random_bool(CREATIONS) {
                // The smaller of two random numbers makes the first base items the most popular.
                let mut number = || self.random.random_range(0..CATALOGUE.len());
                let base_item = fixed_id(number().min(number()));
                events
                    .items
                    .push(json!({ "id": id, "base_item_id": base_item, "created_at": time }));
                self.add_to_stock(id);
            } else {
                let item = self.stock[self.random.random_range(0..self.stock.len())];
                let owner = fixed_id(self.random.random_range(0..USERS));
                events.transfers.push(
                    json!({ "id": id, "item_id": item, "owner_id": owner, "timestamp": time }),
                );
            }
        }
        events
    }

    /// Adds an item. A full stock loses a random one.
    fn add_to_stock(&mut self, item: Uuid) {
        if self.stock.len() < STOCK {
            self.stock.push(item);
        } else {
            self.stock[self.random.random_range(0..STOCK)] = item;
        }
    }
}

/// A random time until the next event: by day there are more than `rate` a second, at night fewer.
fn time_to_next(now: OffsetDateTime, rate: f64, random: &mut StdRng) -> Duration {
    let hour = (now - now.replace_time(time::Time::MIDNIGHT)).as_seconds_f64() / 3_600.0;
    let busyness = 1.0 + SWING * (TAU * (hour - BUSIEST_HOUR) / 24.0).cos();
    // The intervals of independent events are exponentially distributed.
    Duration::seconds_f64(-(1.0 - random.random::<f64>()).ln() / (rate * busyness))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;
    use time::macros::datetime;

    use super::*;

    const MIDNIGHT: OffsetDateTime = datetime!(2026-11-23 0:00 UTC);

    /// A company with the same events in each run.
    fn company() -> Company {
        Company::new(MIDNIGHT, StdRng::seed_from_u64(1))
    }

    #[test]
    fn only_items_of_the_company_are_transferred() {
        let mut company = company();
        let events = company.events(1.0, MIDNIGHT + Duration::DAY, 1_000);
        assert!((600..800).contains(&events.transfers.len()), "{}", events.transfers.len());
        assert_eq!(events.items.len() + events.transfers.len(), 1_000);
        let items: HashSet<&Value> = events.items.iter().map(|item| &item["id"]).collect();
        assert!(events.transfers.iter().all(|transfer| items.contains(&transfer["item_id"])));
    }

    #[test]
    fn the_stock_is_bounded() {
        let mut company = company();
        for _ in 0..2 * STOCK {
            company.add_to_stock(Uuid::now_v7());
        }
        assert_eq!(company.stock.len(), STOCK);
    }

    #[test]
    fn the_rate_is_the_average_of_a_day_that_is_busier_at_noon() {
        let mut company = company();
        let hours = [(); 24].map(|()| {
            let events = company.events(0.5, company.now + Duration::HOUR, usize::MAX);
            events.items.len() + events.transfers.len()
        });
        let sum: usize = hours.iter().sum();
        assert!(sum.abs_diff(43_200) < 1_000, "{sum}");
        assert!(hours[13] > 3 * hours[1], "{hours:?}");
    }
}
