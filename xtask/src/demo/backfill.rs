//! Events of past days, through the bulk paths.
//!
//! Invariant: a day is a function of the seed, the rate and the date, its ids included. So posting
//! it again, or its rest later on the same day, adds only what was missing. Only the recent items
//! of a day are held in memory.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, OffsetDateTime, Time};
use uuid::Uuid;

use crate::demo::api::Api;
use crate::demo::company::{Company, Event, Stock, id_at, wait};
use crate::demo::progress::{Progress, Tally};

/// The days to post.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    pub(crate) seed: u64,
    /// Events a second.
    pub(crate) rate: f64,
    /// The first day, from its midnight UTC on.
    pub(crate) first: Date,
    pub(crate) until: OffsetDateTime,
}

impl Past {
    fn days(self) -> impl Iterator<Item = Date> {
        let next = move |day: &Date| day.next_day().filter(|day| *day <= self.until.date());
        std::iter::successors(Some(self.first), next)
    }
}

/// Posts all days, and counts what became of the rows.
pub(crate) async fn post(
    api: &Api,
    company: &Arc<Company>,
    past: Past,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut progress = Progress::default();
    for day in past.days() {
        progress.print(|| format!("{day}: {} events sent", tally.events()));
        // The items of a day first, because its transfers refer to them.
        for (path, count) in [("/items", &mut tally.items), ("/transfers", &mut tally.transfers)] {
            count.add(&api.upload(path, || lines(Day::new(company, past, day), path)).await?);
        }
    }
    Ok(())
}

/// The lines of one bulk path.
fn lines(day: Day, path: &'static str) -> impl Iterator<Item = Value> + Send + 'static {
    day.filter_map(move |(time, id, event)| {
        let time = time.format(&Rfc3339).ok()?;
        match (event, path) {
            (Event::Creation { base_item }, "/items") => {
                Some(json!({ "id": id, "base_item_id": base_item, "created_at": time }))
            }
            (Event::Transfer { item, owner }, "/transfers") => {
                Some(json!({ "id": id, "item_id": item, "owner_id": owner, "timestamp": time }))
            }
            _ => None,
        }
    })
}

/// The events of one day with their times and ids, in order. Today ends now.
struct Day {
    company: Arc<Company>,
    rate: f64,
    random: StdRng,
    stock: Stock,
    now: OffsetDateTime,
    until: OffsetDateTime,
}

impl Day {
    fn new(company: &Arc<Company>, past: Past, day: Date) -> Self {
        let midnight = day.with_time(Time::MIDNIGHT).assume_utc();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&past.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&past.rate.to_bits().to_le_bytes());
        seed[16..20].copy_from_slice(&day.to_julian_day().to_le_bytes());
        Self {
            company: Arc::clone(company),
            rate: past.rate,
            random: StdRng::from_seed(seed),
            stock: Stock::default(),
            now: midnight,
            until: past.until.min(midnight.saturating_add(Duration::DAY)),
        }
    }
}

impl Iterator for Day {
    type Item = (OffsetDateTime, Uuid, Event);

    fn next(&mut self) -> Option<Self::Item> {
        self.now = self.now.saturating_add(wait(self.now, self.rate, &mut self.random));
        if self.now >= self.until {
            return None;
        }
        let id = id_at(self.now, &mut self.random);
        let event = self.company.next(&self.stock, &mut self.random);
        if matches!(event, Event::Creation { .. }) {
            self.stock.add(id, &mut self.random);
        }
        Some((self.now, id, event))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use time::macros::{date, datetime};

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

    fn past(until: OffsetDateTime) -> Past {
        Past { seed: 1, rate: 0.05, first: date!(2026 - 11 - 23), until }
    }

    fn events(past: Past, day: Date) -> Vec<(OffsetDateTime, Uuid, Event)> {
        Day::new(&Arc::new(Company::new(past.seed)), past, day).collect()
    }

    #[test]
    fn the_past_starts_with_a_whole_day_and_ends_today() {
        let past = past(NOON);
        let days: Vec<Date> = past.days().collect();
        assert_eq!(days, [date!(2026 - 11 - 23), date!(2026 - 11 - 24), date!(2026 - 11 - 25)]);
        let times: Vec<_> = events(past, days[2]).into_iter().map(|(time, ..)| time).collect();
        assert!(times.is_sorted() && times[0] >= datetime!(2026-11-25 0:00 UTC));
        assert!(*times.last().unwrap() < NOON);
        assert!(events(past, days[0]).last().unwrap().0 > datetime!(2026-11-23 23:00 UTC));
    }

    #[test]
    fn later_on_the_same_day_there_is_only_more() {
        let day = NOON.date();
        let earlier = events(past(NOON), day);
        let later = events(past(NOON + Duration::HOUR), day);
        assert!(earlier.len() > 100 && later.len() > earlier.len());
        assert_eq!(later[..earlier.len()], earlier);
    }

    #[test]
    fn other_seeds_rates_and_days_have_other_ids() {
        let past = past(NOON);
        let day = date!(2026 - 11 - 24);
        let others = [
            (Past { seed: 2, ..past }, day),
            (Past { rate: 0.06, ..past }, day),
            (past, day.previous_day().unwrap()),
        ];
        let ids =
            |past, day| events(past, day).into_iter().map(|(_, id, _)| id).collect::<HashSet<_>>();
        let one = ids(past, day);
        for (other, of_day) in others {
            assert!(one.is_disjoint(&ids(other, of_day)), "{other:?} {of_day}");
        }
    }

    #[test]
    fn transfers_are_of_items_of_the_same_day() {
        let day = date!(2026 - 11 - 24);
        let events = events(past(NOON), day);
        let mut items = HashSet::new();
        for (_, id, event) in &events {
            match event {
                Event::Creation { .. } => assert!(items.insert(*id)),
                Event::Transfer { item, .. } => assert!(items.contains(item)),
            }
        }
        let company = Arc::new(Company::new(1));
        let count = |path| lines(Day::new(&company, past(NOON), day), path).count();
        assert_eq!(
            (count("/items"), count("/items") + count("/transfers")),
            (items.len(), events.len())
        );
    }
}
