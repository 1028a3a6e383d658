//! Events as they happen, one request each.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::json;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::demo::api::{Api, Sent};
use crate::demo::company::{Company, Event, Stock, wait};
use crate::demo::progress::{Progress, Tally};
use crate::interrupts::Interrupts;

/// The maximum number of concurrent requests.
const MAX_IN_FLIGHT: usize = 64;

/// The share of transfers that are made by `PUT /items/{id}/ownership`.
const BY_OWNERSHIP: f64 = 0.25;

/// The maximum delay behind schedule. Events that are later are left out rather than sent in a
/// flood.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// The longest time for outstanding responses after the last request.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// An event that was sent, its id, and the outcome.
type Done = (Event, Uuid, anyhow::Result<Sent>);

/// Sends `events` events, or without that until interrupted. Returns the number of events that were
/// not answered in time.
pub(crate) async fn send_events(
    api: &Arc<Api>,
    company: &Company,
    rate: f64,
    events: Option<u64>,
    tally: &mut Tally,
    interrupts: &mut Interrupts,
) -> anyhow::Result<usize> {
    let mut random: StdRng = rand::make_rng();
    let mut stock = Stock::default();
    let mut in_flight = JoinSet::new();
    let mut progress = Progress::default();
    let mut begun = 0;
    let before = tally.events();
    let mut due = Instant::now();
    let is_enough = |begun: u64| events.is_some_and(|events| begun >= events);
    while !(is_enough(begun) && in_flight.is_empty()) {
        tokio::select! {
            () = tokio::time::sleep_until(due), if in_flight.len() < MAX_IN_FLIGHT && !is_enough(begun) => {
                let event = company.next(&stock, &mut random);
                let by_ownership = random.random_bool(BY_OWNERSHIP);
                in_flight.spawn(send(Arc::clone(api), event, by_ownership));
                begun += 1;
                let next = wait(OffsetDateTime::now_utc(), rate, &mut random);
                due = due.max(Instant::now() - MAX_DELAY) + next.unsigned_abs();
            }
            Some(done) = in_flight.join_next() => {
                settle(done?, tally, &mut stock, &mut random)?;
                progress.print(|| format!("{} events sent", tally.events() - before));
            }
            () = interrupts.received() => break,
        }
    }
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    while let Ok(Some(done)) = tokio::time::timeout_at(deadline, in_flight.join_next()).await {
        settle(done?, tally, &mut stock, &mut random)?;
    }
    Ok(in_flight.len())
}

/// Sends an event with an id of its own.
async fn send(api: Arc<Api>, event: Event, by_ownership: bool) -> Done {
    let id = Uuid::now_v7();
    let sent = match event {
        Event::Creation { base_item } => {
            let body = json!({ "id": id, "base_item_id": base_item });
            api.send(Method::POST, "/items", None, &body).await
        }
        Event::Transfer { item, owner } if by_ownership => {
            let path = format!("/items/{item}/ownership");
            api.send(Method::PUT, &path, Some(id), &json!({ "to": owner })).await
        }
        Event::Transfer { item, owner } => {
            let body = json!({ "id": id, "item_id": item, "owner_id": owner });
            api.send(Method::POST, "/transfers", None, &body).await
        }
    };
    (event, id, sent)
}

/// Counts an outcome. A stored item can be transferred from now on.
fn settle(
    (event, id, sent): Done,
    tally: &mut Tally,
    stock: &mut Stock,
    random: &mut StdRng,
) -> anyhow::Result<()> {
    let sent = sent?;
    let outcomes = match event {
        Event::Creation { .. } => &mut tally.items,
        Event::Transfer { .. } => &mut tally.transfers,
    };
    match sent {
        Sent::Stored => outcomes.accepted += 1,
        Sent::Refused => outcomes.rejected += 1,
    }
    if let (Event::Creation { .. }, Sent::Stored) = (event, sent) {
        stock.add(id, random);
    }
    Ok(())
}
