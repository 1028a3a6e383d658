//! `cargo xtask demo`: a simulated company that sends events, so that there are numbers to look at.
//!
//! It uses the REST interface alone, as any producer does. Its past follows from the seed, so
//! posting it again adds only what is missing. Live events are new each time.

mod api;
mod backfill;
mod company;
mod live;
mod progress;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use local_stack::stack::ServiceKind;
use serde_json::json;
use time::OffsetDateTime;

use crate::demo::api::Api;
use crate::demo::backfill::Past;
use crate::demo::company::Company;
use crate::demo::progress::Tally;
use crate::interrupts::Interrupts;
use crate::settings::Settings;

/// The range of rates, in events a second.
const RATES: RangeInclusive<f64> = 0.001..=1_000.0;

/// The longest past, in days: a hundred years.
const MAX_PAST_DAYS: u64 = 36_525;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Events a second, on average over a day.
    #[arg(long, default_value = "5", value_parser = rate)]
    rate: f64,
    /// First post the events of a past of this length, such as 90d. Its first day starts at
    /// midnight UTC.
    #[arg(long, value_parser = past)]
    backfill: Option<Duration>,
    /// Events a second of that past, on average over a day.
    #[arg(long, default_value = "0.1", value_parser = rate)]
    backfill_rate: f64,
    /// The company and its past follow from this number. Posting the same past again adds only what
    /// is missing.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Stop after this number of live events; 0 posts only the past.
    #[arg(long)]
    events: Option<u64>,
    /// The URL of ingest-api. [default: the native stack's]
    #[arg(long)]
    url: Option<String>,
}

/// Sends events until there are enough, or until interrupted.
///
/// # Errors
/// No ingest-api answers, or something else does.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let url = match &options.url {
        Some(url) => url.clone(),
        None => {
            format!("http://127.0.0.1:{}", Settings::load()?.ports.public(ServiceKind::IngestApi))
        }
    };
    let mut interrupts = Interrupts::new()?;
    let api = Arc::new(Api::connect(&url).await?);
    println!("== simulating the company with seed {} at {url}; Ctrl-C ends it", options.seed);
    let mut tally = Tally::default();
    let unanswered = send(&options, &api, &mut tally, &mut interrupts).await;
    tally.print();
    let unanswered = unanswered?;
    if unanswered > 0 {
        println!("{unanswered} events were not answered: they may or may not be stored");
    }
    Ok(())
}

/// Posts the past, then live events. Returns the number of events that were not answered in time.
async fn send(
    options: &Options,
    api: &Arc<Api>,
    tally: &mut Tally,
    interrupts: &mut Interrupts,
) -> anyhow::Result<usize> {
    let company = Arc::new(Company::new(options.seed));
    let interrupted = tokio::select! {
        posted = post_past(options, api, &company, tally) => posted.map(|()| false)?,
        () = interrupts.received() => true,
    };
    if interrupted {
        println!(
            "interrupted: the last upload is not in these figures; the same command completes it"
        );
        return Ok(0);
    }
    if options.events == Some(0) {
        return Ok(0);
    }
    println!("== sending about {} events a second: more by day, fewer at night", options.rate);
    live::send_events(api, &company, options.rate, options.events, tally, interrupts).await
}

/// Posts the base items and users, and the past.
async fn post_past(
    options: &Options,
    api: &Api,
    company: &Arc<Company>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let base_items = || {
        let rows = company.base_items.clone().into_iter();
        rows.map(|(id, description)| json!({ "id": id, "description": description }))
    };
    tally.base_items.add(&api.upload("/base-items", base_items).await?);
    let users = || company.users.clone().into_iter().map(|id| json!({ "id": id }));
    tally.users.add(&api.upload("/users", users).await?);
    let Some(length) = options.backfill else { return Ok(()) };
    let until = OffsetDateTime::now_utc();
    let length = time::Duration::try_from(length).unwrap_or(time::Duration::MAX);
    let first = until.saturating_sub(length).date();
    println!("== posting the past from {first} on; rows that are already there stay as they are");
    let past = Past { seed: options.seed, rate: options.backfill_rate, first, until };
    backfill::post(api, company, past, tally).await
}

fn rate(text: &str) -> Result<f64, String> {
    let expected =
        || format!("expected events a second, from {} to {}", RATES.start(), RATES.end());
    text.parse().ok().filter(|rate| RATES.contains(rate)).ok_or_else(expected)
}

fn past(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if length > Duration::from_secs(MAX_PAST_DAYS * 86_400) {
        return Err(format!("expected at most {MAX_PAST_DAYS} days"));
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
