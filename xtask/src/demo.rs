//! `cargo xtask demo`: a small company at work, so that there are numbers to look at.
//!
//! It uses the REST interface alone, as any producer does. Its past is made of the seed: posting that again adds only
//! what is missing. Its present is new each time, and adds to what is there.

mod api;
mod backfill;
mod company;
mod live;
mod rhythm;
mod schedule;
mod screen;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use local_stack::stack::ServiceKind;
use serde_json::json;
use time::OffsetDateTime;

use crate::demo::api::{Api, News};
use crate::demo::backfill::Past;
use crate::demo::company::Company;
use crate::demo::live::Work;
use crate::demo::screen::Screen;
use crate::import::Answer;
use crate::settings::Settings;
use crate::up::Interrupts;

/// The rates that can be asked for, in events a second.
const RATES: RangeInclusive<f64> = 0.001..=1_000.0;

/// The longest past, in days: a hundred years.
const PAST_DAYS: u64 = 36_525;

/// What is asked of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Events a second, on average over a week.
    #[arg(long, default_value = "5", value_parser = rate)]
    rate: f64,
    /// First posts the events of so long a past, such as 90d; of its first day all, from midnight UTC on.
    #[arg(long, value_parser = past)]
    backfill: Option<Duration>,
    /// Events a second of that past, on average over a year.
    #[arg(long, default_value = "0.1", value_parser = rate)]
    backfill_rate: f64,
    /// What the company and its past are made of. The same past posted again adds only what is missing.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Ends by itself after so many events of the present; after 0, once the past is posted.
    #[arg(long)]
    events: Option<u64>,
    /// Where ingest-api is, where it is not that of this machine's stack.
    #[arg(long)]
    url: Option<String>,
}

/// What became of rows of one kind.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    accepted: u64,
    repeated: u64,
    rejected: u64,
}

impl Count {
    const fn add(&mut self, answer: &Answer) {
        self.accepted += answer.accepted;
        self.repeated += answer.repeated;
        self.rejected += answer.rejected;
    }
}

/// What became of all rows.
#[derive(Debug, Default)]
struct Tally {
    base_items: Count,
    users: Count,
    items: Count,
    transfers: Count,
}

impl Tally {
    /// Events that are stored.
    const fn events(&self) -> u64 {
        let Self { items, transfers, .. } = self;
        items.accepted + items.repeated + transfers.accepted + transfers.repeated
    }

    /// Events that were refused.
    const fn rejected(&self) -> u64 {
        self.items.rejected + self.transfers.rejected
    }

    /// Events of which is known what became.
    const fn answered(&self) -> u64 {
        self.events() + self.rejected()
    }

    fn show(&self) {
        println!("{:<12} {:>12} {:>12} {:>12}", "", "accepted", "repeated", "rejected");
        let Self { base_items, users, items, transfers } = self;
        let kinds =
            [("base-items", base_items), ("users", users), ("items", items), ("transfers", transfers)];
        for (kind, Count { accepted, repeated, rejected }) in kinds {
            println!("{kind:<12} {accepted:>12} {repeated:>12} {rejected:>12}");
        }
    }
}

/// Lets the company work, until it has done enough or is interrupted.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let url = match &options.url {
        Some(url) => url.clone(),
        None => format!("http://127.0.0.1:{}", Settings::load()?.ports.public(ServiceKind::IngestApi)),
    };
    let mut interrupts = Interrupts::new()?;
    let (api, mut news) = Api::find(url.clone()).await?;
    println!("== a company of seed {} works with the ingest-api at {url}; Ctrl-C ends it", options.seed);
    let mut tally = Tally::default();
    let outcome = work(&options, &api, &mut tally, &mut news, &mut interrupts).await;
    for text in news.rest() {
        println!("{text}");
    }
    tally.show();
    let unanswered = outcome?;
    if unanswered > 0 {
        println!("{unanswered} events were still without an answer: whether they are stored is not known");
    }
    Ok(())
}

/// Returns how many events were left without an answer.
async fn work(
    options: &Options,
    api: &Api,
    tally: &mut Tally,
    news: &mut News,
    interrupts: &mut Interrupts,
) -> anyhow::Result<usize> {
    let company = Arc::new(Company::new(options.seed));
    let interrupted = tokio::select! {
        begun = begin(options, api, &company, tally, news) => begun.map(|()| false)?,
        () = interrupts.heard() => true,
    };
    if interrupted {
        println!("interrupted: the last upload is not in these figures; the same command completes it");
        return Ok(0);
    }
    if options.events == Some(0) {
        return Ok(0);
    }
    println!(
        "== sending about {} events a second: more by day, fewer by night and at weekends",
        options.rate
    );
    let work = Work { rate: options.rate, events: options.events };
    live::work(api, &company, work, tally, news, interrupts).await
}

/// Posts the base items and users, and the past.
async fn begin(
    options: &Options,
    api: &Api,
    company: &Arc<Company>,
    tally: &mut Tally,
    news: &mut News,
) -> anyhow::Result<()> {
    let past = options.backfill.map(|length| {
        let length = time::Duration::try_from(length).unwrap_or(time::Duration::MAX);
        Past::reaching_back(length, options.seed, options.backfill_rate, OffsetDateTime::now_utc())
    });
    let screen = Screen::of_days(past.map_or(0, Past::day_count))?;
    if let Some(past) = past {
        let (first, events) = (past.first, past.expected_events());
        println!(
            "== posting the past from {first} on, about {events} events; those that are there stay as they are"
        );
    }
    let mut all = std::pin::pin!(async {
        found(api, company, tally).await?;
        match past {
            Some(past) => backfill::post(api, company, past, tally, &screen).await,
            None => Ok(()),
        }
    });
    loop {
        tokio::select! {
            outcome = &mut all => return outcome,
            Some(text) = news.next() => screen.say(&text),
        }
    }
}

/// Posts the base items and users, where they are not there yet.
async fn found(api: &Api, company: &Arc<Company>, tally: &mut Tally) -> anyhow::Result<()> {
    let base_items = || {
        let company = Arc::clone(company);
        (0..company.base_items.len()).map(move |place| {
            let (id, description) = company.base_items[place];
            json!({ "id": id, "description": description }).to_string()
        })
    };
    tally.base_items.add(&api.upload("/base-items", base_items).await?);
    let users = || company.users.clone().into_iter().map(|id| json!({ "id": id }).to_string());
    tally.users.add(&api.upload("/users", users).await?);
    Ok(())
}

fn rate(text: &str) -> Result<f64, String> {
    let expected = || format!("expected events a second, from {} to {}", RATES.start(), RATES.end());
    text.parse().ok().filter(|rate| RATES.contains(rate)).ok_or_else(expected)
}

fn past(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if length > Duration::from_secs(PAST_DAYS * 86_400) {
        return Err(format!("expected at most {PAST_DAYS} days"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_pasts_have_bounds() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "1001", "NaN", "fast"] {
            assert!(rate(wrong).unwrap_err().contains("from 0.001 to 1000"), "{wrong}");
        }
        assert_eq!(past("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert!(past("101years").unwrap_err().contains("36525"));
        assert!(past("ninety").is_err());
    }
}
