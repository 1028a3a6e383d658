//! The present: one request an event, at the time that it happens.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::json;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use crate::demo::Tally;
use crate::demo::api::{Api, News, Sent};
use crate::demo::company::{Company, Happening, Stock};
use crate::demo::schedule::Arrivals;
use crate::demo::screen::Screen;
use crate::interrupts::Interrupts;

/// How many requests are under way at most.
const UNDER_WAY: usize = 64;

/// How many transfers are made by `PUT /items/{id}/ownership`, of all.
const BY_OWNERSHIP: f64 = 0.25;

/// How far behind its schedule the company may fall. What is later is left out, rather than made up for in a flood.
const LATEST: Duration = Duration::from_secs(1);

/// How often progress is shown, and over how many of these the present rate is measured.
const SHOW_EVERY: Duration = Duration::from_millis(250);
const SAMPLES: usize = 20;

/// How long what is under way may still take once the company stops.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the company works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// Events a second, on average over a week.
    pub(crate) rate: f64,
    /// How many events there are, where that is bounded.
    pub(crate) events: Option<u64>,
}

/// What a request was about, and what became of it.
type Done = (Happening, Uuid, anyhow::Result<Sent>);

/// Sends events until there are as many as there should be, or until asked to stop. Returns how many were left
/// without an answer then.
pub(crate) async fn work(
    api: &Api,
    company: &Company,
    Work { rate, events }: Work,
    tally: &mut Tally,
    news: &mut News,
    interrupts: &mut Interrupts,
) -> anyhow::Result<usize> {
    let screen = Screen::endless()?;
    let mut random: StdRng = rand::make_rng();
    let (started, start) = (Instant::now(), OffsetDateTime::now_utc());
    let mut arrivals = Arrivals::new(start, rate, rand::make_rng());
    let mut next = arrivals.next();
    let (mut stock, mut under_way) = (Stock::default(), JoinSet::<Done>::new());
    let (mut begun, mut pace) = (0, Pace::default());
    let before = tally.answered();
    let mut show = tokio::time::interval(SHOW_EVERY);
    show.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let enough = |begun: u64| events.is_some_and(|events| begun >= events);
    while !(enough(begun) && under_way.is_empty()) {
        let Some(arrival) = next else { break };
        let due = started + (arrival - start).try_into().unwrap_or(Duration::ZERO);
        tokio::select! {
            () = tokio::time::sleep_until(due), if under_way.len() < UNDER_WAY && !enough(begun) => {
                let happening = company.next(&stock, &mut random);
                let by_ownership = random.random_bool(BY_OWNERSHIP);
                under_way.spawn(send(api.clone(), happening, by_ownership));
                begun += 1;
                if due.elapsed() > LATEST {
                    arrivals.skip_to(start + started.elapsed());
                }
                next = arrivals.next();
            }
            Some(done) = under_way.join_next() => {
                settle(done?, tally, &mut stock, &mut random)?;
            }
            Some(text) = news.next() => screen.say(&text),
            _ = show.tick() => {
                let sent = tally.answered() - before;
                let (rate, refused) = (pace.measure(sent), tally.rejected());
                let text = format!("{sent} events sent, {rate:.1} a second just now, {refused} refused");
                screen.progress(sent, text);
            }
            () = interrupts.received() => break,
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while let Ok(Some(done)) = tokio::time::timeout_at(deadline, under_way.join_next()).await {
        settle(done?, tally, &mut stock, &mut random)?;
    }
    Ok(under_way.len())
}

/// Sends what happens, under an id of its own.
async fn send(api: Api, happening: Happening, by_ownership: bool) -> Done {
    let id = Uuid::now_v7();
    let sent = match happening {
        Happening::Creation { base_item } => {
            let body = json!({ "id": id, "base_item_id": base_item });
            api.send(Method::POST, "/items", None, &body).await
        }
        Happening::Transfer { item, owner } if by_ownership => {
            let path = format!("/items/{item}/ownership");
            api.send(Method::PUT, &path, Some(id), &json!({ "to": owner })).await
        }
        Happening::Transfer { item, owner } => {
            let body = json!({ "id": id, "item_id": item, "owner_id": owner });
            api.send(Method::POST, "/transfers", None, &body).await
        }
    };
    (happening, id, sent)
}

/// Counts what became of an event; an item that is stored can be transferred from now on.
fn settle(
    (happening, id, sent): Done,
    tally: &mut Tally,
    stock: &mut Stock,
    random: &mut StdRng,
) -> anyhow::Result<()> {
    let sent = sent?;
    let count = match happening {
        Happening::Creation { .. } => &mut tally.items,
        Happening::Transfer { .. } => &mut tally.transfers,
    };
    match sent {
        Sent::Stored => count.accepted += 1,
        Sent::Refused => count.rejected += 1,
    }
    if let (Happening::Creation { .. }, Sent::Stored) = (happening, sent) {
        stock.add(id, random);
    }
    Ok(())
}

/// How many events there were at the last few looks.
#[derive(Debug, Default)]
struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    /// Events a second since the oldest of those looks.
    fn measure(&mut self, events: u64) -> f64 {
        let now = Instant::now();
        self.0.push_back((now, events));
        if self.0.len() > SAMPLES {
            self.0.pop_front();
        }
        let Some((oldest, before)) = self.0.front() else { return 0.0 };
        let seconds = (now - *oldest).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 events")]
        let sent = (events - before) as f64;
        if seconds > 0.0 { sent / seconds } else { 0.0 }
    }
}
