//! `cargo xtask demo`: a simulated company that sends events, so that there are numbers to look at.
//!
//! It uses the uploads of ingest-api, as any producer may. Invariant: rows have ids, so an upload
//! that is repeated until it is answered counts once.

mod company;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use service_kit::client;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use self::company::{Company, Events};
use crate::import::{self, UploadResult};
use crate::interrupts::Interrupts;
use crate::keys::UploadKey;

/// Events a second of the history, on average over a day.
const HISTORY_RATE: f64 = 0.1;

/// The interval between two uploads of live events.
const INTERVAL: Duration = Duration::from_millis(200);

/// The maximum number of events in an upload.
const MAX_EVENTS: usize = 10_000;

/// The longest time for the response to an upload.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The time between two attempts of an upload: what ingest-api asks for in `Retry-After`.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The longest time for the response to the last upload after Ctrl-C.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Events a second, on average over a day.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// First post a history of this length, such as 90d.
    #[arg(long, value_parser = humantime::parse_duration)]
    backfill: Option<Duration>,
    /// Stop after this number of live events; 0 posts only the history.
    #[arg(long)]
    events: Option<usize>,
    /// The URL of ingest-api, with a key in `NEWCYCLE_KEY`. [default: the native stack's, with a
    /// key for this command]
    #[arg(long)]
    url: Option<String>,
}

/// Sends events until there are enough, or until interrupted.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let url = import::ingest_url(options.url.clone())?;
    // Any answer will do, so no key is needed.
    let client = client::internal().timeout(UPLOAD_TIMEOUT).build()?;
    client.get(format!("{url}/users?limit=1")).send().await.with_context(|| {
        format!(
            "no ingest-api answers at {url}: start one with `cargo xtask up`, or name another one \
             with --url"
        )
    })?;
    let key = UploadKey::get(options.url.as_deref(), "demo").await?;
    let client = key.client()?.timeout(UPLOAD_TIMEOUT).build()?;
    println!("== simulating a company at {url}; Ctrl-C ends it");
    let mut producer = Producer { client, url, results: BTreeMap::new() };
    let outcome = simulate_until_interrupted(&options, &mut producer).await;
    key.revoke().await;
    import::print_header();
    for kind in import::KINDS {
        producer.results.remove(kind).unwrap_or_default().print(kind);
    }
    outcome
}

async fn simulate_until_interrupted(
    options: &Options,
    producer: &mut Producer,
) -> anyhow::Result<()> {
    let mut interrupts = Interrupts::new()?;
    let stop = CancellationToken::new();
    let mut simulation = pin!(simulate(options, producer, &stop));
    tokio::select! {
        outcome = &mut simulation => return outcome,
        () = interrupts.received() => stop.cancel(),
    }
    // The rows on their way are counted if they are answered soon.
    tokio::time::timeout(DRAIN_TIMEOUT, simulation).await.unwrap_or_else(|_| {
        println!("the last upload was not answered: it may be stored or not");
        Ok(())
    })
}

/// Sends events until there are enough, or until `stop` is cancelled, which it checks between
/// uploads.
async fn simulate(
    options: &Options,
    producer: &mut Producer,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    producer.upload("base-items", &company::base_items()).await?;
    producer.upload("users", &company::users()).await?;
    let now = OffsetDateTime::now_utc();
    let history = options.backfill.unwrap_or_default().try_into()?;
    let start = now.checked_sub(history).context("--backfill is too long")?;
    let mut company = Company::new(start, rand::make_rng());
    while company.now < now {
        if stop.is_cancelled() {
            return Ok(());
        }
        producer.send(&company.events(HISTORY_RATE, now, MAX_EVENTS)).await?;
        println!("== sent the history until {}", company.now.date());
    }
    let mut left = options.events.unwrap_or(usize::MAX);
    if left > 0 {
        println!("== sending about {} events a second: more by day, fewer at night", options.rate);
    }
    while left > 0 {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return Ok(()),
        }
        let now = OffsetDateTime::now_utc();
        let events = company.events(f64::from(options.rate), now, left.min(MAX_EVENTS));
        producer.send(&events).await?;
        left -= events.items.len() + events.transfers.len();
    }
    Ok(())
}

struct Producer {
    client: Client,
    url: String,
    /// What became of all rows, by kind.
    results: BTreeMap<&'static str, UploadResult>,
}

impl Producer {
    /// Sends the items first, because transfers refer to them.
    async fn send(&mut self, events: &Events) -> anyhow::Result<()> {
        self.upload("items", &events.items).await?;
        self.upload("transfers", &events.transfers).await
    }

    /// Uploads rows until they are answered. Prints the first error of them.
    async fn upload(&mut self, kind: &'static str, rows: &[Value]) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let mut is_repeated = false;
        let (status, text) = loop {
            let error = match self.post(kind, lines.clone()).await {
                Ok((StatusCode::SERVICE_UNAVAILABLE, text)) => {
                    format!("ingest-api answers 503 ({text})")
                }
                Ok(answer) => break answer,
                Err(error) => format!("ingest-api does not answer ({error})"),
            };
            if !is_repeated {
                println!("{error}: trying again");
            }
            is_repeated = true;
            tokio::time::sleep(RETRY_DELAY).await;
        };
        let answered =
            || format!("{}/{kind} answered {status}: {text}: is that an ingest-api?", self.url);
        let result: UploadResult = serde_json::from_str(&text).with_context(answered)?;
        let total = self.results.entry(kind).or_default();
        if let (0, Some(bad)) = (total.rejected, result.errors.first()) {
            println!("a row of {kind} was rejected: {}", bad.detail);
        }
        total.add(&result);
        Ok(())
    }

    async fn post(&self, kind: &str, lines: String) -> reqwest::Result<(StatusCode, String)> {
        let request = self.client.post(format!("{}/{kind}", self.url));
        let request = request.header("content-type", "application/x-ndjson").body(lines);
        let response = request.send().await?;
        Ok((response.status(), response.text().await?))
    }
}
