//! The past: whole days of events that have happened already, through the bulk paths.
//!
//! Invariant: a day is a function of the seed, the rate and the date, its ids included. So posting it again, or its
//! rest later on the same day, adds only what was missing. Nothing of a day is held in memory but its newest items.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, OffsetDateTime, Time};
use uuid::Uuid;

use crate::demo::Tally;
use crate::demo::api::Api;
use crate::demo::company::{Company, Happening, Stock, id_at};
use crate::demo::rhythm::season;
use crate::demo::schedule::Arrivals;
use crate::demo::screen::Screen;

/// The days to post.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    pub(crate) seed: u64,
    /// Events a second, on average over a year.
    pub(crate) rate: f64,
    /// The first day, which is posted from its midnight on.
    pub(crate) first: Date,
    /// Where the past ends.
    pub(crate) until: OffsetDateTime,
}

impl Past {
    /// From the day that lies so far back.
    pub(crate) fn reaching_back(length: Duration, seed: u64, rate: f64, until: OffsetDateTime) -> Self {
        Self { seed, rate, first: until.saturating_sub(length).date(), until }
    }

    fn days(self) -> impl Iterator<Item = Date> {
        let next = move |day: &Date| day.next_day().filter(|day| *day <= self.until.date());
        std::iter::successors(Some(self.first), next)
    }

    /// About how many events there are.
    pub(crate) fn expected_events(self) -> u64 {
        let seconds = self.days().map(|day| {
            let midnight = day.with_time(Time::MIDNIGHT).assume_utc();
            (self.until - midnight).min(Duration::DAY).as_seconds_f64() * season(midnight)
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded by rate and length"
        )]
        let events = (seconds.sum::<f64>() * self.rate).round() as u64;
        events
    }

    /// How many days there are, today's part included.
    pub(crate) fn day_count(self) -> u64 {
        u64::try_from((self.until.date() - self.first).whole_days() + 1).unwrap_or(0)
    }
}

/// Posts all of it, day by day, and counts what became of it.
pub(crate) async fn post(
    api: &Api,
    company: &Arc<Company>,
    past: Past,
    tally: &mut Tally,
    screen: &Screen,
) -> anyhow::Result<()> {
    for (done, day) in (0..).zip(past.days()) {
        screen.progress(done, format!("{day}, {} events sent", tally.events()));
        // Of each day the items first: its transfers refer to them.
        for (path, count) in [("/items", &mut tally.items), ("/transfers", &mut tally.transfers)] {
            let answer = api.upload(path, || lines(Day::new(company, past, day), path)).await?;
            count.add(&answer);
        }
    }
    Ok(())
}

/// The lines of a path of the bulk interface.
fn lines(day: Day, path: &'static str) -> impl Iterator<Item = String> + Send + 'static {
    day.filter_map(move |Event { time, id, happening }| {
        let time = time.format(&Rfc3339).ok()?;
        match (happening, path) {
            (Happening::Creation { base_item }, "/items") => {
                Some(json!({ "id": id, "base_item_id": base_item, "created_at": time }).to_string())
            }
            (Happening::Transfer { item, owner }, "/transfers") => {
                Some(json!({ "id": id, "item_id": item, "owner_id": owner, "timestamp": time }).to_string())
            }
            _ => None,
        }
    })
}

/// One event of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    time: OffsetDateTime,
    id: Uuid,
    happening: Happening,
}

/// The events of one day, or of its part until the past ends, in the order in which they happened.
struct Day {
    company: Arc<Company>,
    arrivals: Arrivals,
    random: StdRng,
    stock: Stock,
    until: OffsetDateTime,
}

impl Day {
    fn new(company: &Arc<Company>, past: Past, day: Date) -> Self {
        let midnight = day.with_time(Time::MIDNIGHT).assume_utc();
        let tomorrow = midnight.saturating_add(Duration::DAY);
        let mut dice = [0; 32];
        dice[..8].copy_from_slice(&past.seed.to_le_bytes());
        dice[8..16].copy_from_slice(&past.rate.to_bits().to_le_bytes());
        dice[16..20].copy_from_slice(&day.to_julian_day().to_le_bytes());
        let mut random = StdRng::from_seed(dice);
        let arrivals = Arrivals::new(midnight, past.rate * season(midnight), StdRng::from_rng(&mut random));
        let (company, until) = (Arc::clone(company), past.until.min(tomorrow));
        Self { company, arrivals, random, stock: Stock::default(), until }
    }
}

impl Iterator for Day {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let time = self.arrivals.next().filter(|time| *time < self.until)?;
        let id = id_at(time, &mut self.random);
        let happening = self.company.next(&self.stock, &mut self.random);
        if matches!(happening, Happening::Creation { .. }) {
            self.stock.add(id, &mut self.random);
        }
        Some(Event { time, id, happening })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use time::macros::{date, datetime};

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

    fn events(past: Past, day: Date) -> Vec<Event> {
        Day::new(&Arc::new(Company::new(past.seed)), past, day).collect()
    }

    fn past(until: OffsetDateTime) -> Past {
        Past::reaching_back(Duration::days(2), 1, 0.05, until)
    }

    #[test]
    fn the_past_begins_with_a_whole_day_and_ends_within_today() {
        let past = past(NOON);
        let days: Vec<Date> = past.days().collect();
        assert_eq!(days, [date!(2026 - 11 - 23), date!(2026 - 11 - 24), date!(2026 - 11 - 25)]);
        assert_eq!(past.day_count(), 3);
        let times: Vec<_> = events(past, days[2]).into_iter().map(|event| event.time).collect();
        assert!(times.is_sorted() && times[0] >= datetime!(2026-11-25 0:00 UTC));
        assert!(*times.last().unwrap() < NOON);
        assert!(events(past, days[0]).last().unwrap().time > datetime!(2026-11-23 23:00 UTC));
    }

    #[test]
    fn about_as_many_events_happen_as_are_expected() {
        let past = Past::reaching_back(Duration::weeks(4), 1, 0.05, datetime!(2026-11-30 0:00 UTC));
        let expected = i64::try_from(past.expected_events()).unwrap();
        let happened = i64::try_from(past.days().map(|day| events(past, day).len()).sum::<usize>()).unwrap();
        assert!((happened - expected).abs() < expected / 20, "{happened}, not {expected}");
    }

    #[test]
    fn later_on_the_same_day_there_is_only_more() {
        let day = NOON.date();
        let (earlier, later) = (events(past(NOON), day), events(past(NOON + Duration::HOUR), day));
        assert!(earlier.len() > 100 && later.len() > earlier.len());
        assert_eq!(later[..earlier.len()], earlier);
    }

    #[test]
    fn other_seeds_rates_and_days_are_others() {
        let (past, day) = (past(NOON), date!(2026 - 11 - 24));
        let others = [
            (Past { seed: 2, ..past }, day),
            (Past { rate: 0.06, ..past }, day),
            (past, day.previous_day().unwrap()),
        ];
        let ids = |past, day| events(past, day).into_iter().map(|event| event.id).collect::<HashSet<_>>();
        let one = ids(past, day);
        for (other, of_day) in others {
            assert!(one.is_disjoint(&ids(other, of_day)), "{other:?} {of_day}");
        }
    }

    #[test]
    fn transfers_are_of_items_of_the_same_day() {
        let events = events(past(NOON), date!(2026 - 11 - 24));
        let mut items = HashSet::new();
        for Event { id, happening, .. } in &events {
            match happening {
                Happening::Creation { .. } => assert!(items.insert(*id)),
                Happening::Transfer { item, .. } => assert!(items.contains(item)),
            }
        }
        let company = Arc::new(Company::new(1));
        let count = |path| lines(Day::new(&company, past(NOON), date!(2026 - 11 - 24)), path).count();
        assert_eq!((count("/items"), count("/items") + count("/transfers")), (items.len(), events.len()));
    }
}
