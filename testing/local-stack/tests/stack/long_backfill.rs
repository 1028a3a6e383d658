//! One statement of a million events of past times, as an import by SQL writes it.
//!
//! Each of these events has a log row and several rollups of its own, so its fold takes up to twice
//! as long as the statement did. No other count may wait for it.

use std::fmt::Write;
use std::pin::pin;
use std::time::{Duration, Instant};

use domain::{Changes, Topic};
use futures_util::{SinkExt, TryStreamExt};
use local_stack::internal;
use local_stack::stack::{Instance, Replicas, ServiceKind, Variable};
use statistics_stream::history::{HistoryPage, HistoryQuery};
use stats_notifier::store::Statements;
use uuid::Uuid;

use crate::replicas::{Services, observed};
use crate::subscriber::Subscriber;
use crate::support::until_within;

const EVENTS: i64 = 1_000_000;

/// How long the fold of the events, or a recount, may take on a busy machine.
const LONG: Duration = Duration::from_secs(600);

/// Ten times the default. Numbers become stale after two of these without a tick, and a tick has to
/// read the whole statement, which takes longer on a busy machine. It is still a part of what the
/// fold takes, so a tick that waited for the fold would be noticed.
const HEARTBEAT: &str = "10s";

/// All units count events of any age, so that the fold has the most to do.
const SETTINGS: [Variable<'_>; 5] = [
    (ServiceKind::StatsNotifier, "NEWCYCLE__STREAM__HEARTBEAT", HEARTBEAT),
    (ServiceKind::SseGateway, "NEWCYCLE__STREAM__INTERNAL_HEARTBEAT", HEARTBEAT),
    (ServiceKind::SseGateway, "NEWCYCLE__UPSTREAM__READ_TIMEOUT", "20s"),
    (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__SECOND_DAYS", "0"),
    (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__MINUTE_DAYS", "0"),
];

/// The number of items that a subscriber shows.
fn shown(subscriber: &Subscriber) -> i64 {
    let years = "item-creation/year".parse().unwrap();
    let snapshot = subscriber.state().map(|state| state.snapshot(years, usize::MAX));
    snapshot.map_or(0, |years| years.buckets.iter().map(|year| year.count).sum())
}

async fn until_shown(subscriber: &Subscriber, items: i64) {
    until_within(LONG, "the events must be shown", async || {
        (shown(subscriber) >= items).then_some(())
    })
    .await;
}

/// The most time from the commit of the statement until it is shown, in [passes](one_pass). The
/// tick reads the rows once, but the services next to it need the processor, too.
const MAX_PASSES: u32 = 4;

/// The time to read the log rows of the statement once, as a tick does. Taken on the same machine
/// just after a tick, during the same fold, so it may be compared with that.
async fn one_pass(services: &Services) -> Duration {
    let started = Instant::now();
    let cursor = "SELECT snapshot::text FROM rollup_cursor";
    let cursor: String = services.client.query_one(cursor, &[]).await.unwrap().get(0);
    let Statements { tick, .. } = Statements::default();
    let mut rows = pin!(services.client.query_raw(&tick, [cursor]).await.unwrap());
    let mut changes = Changes::default();
    let mut events = 0;
    while let Some(row) = rows.try_next().await.unwrap() {
        if let Some(metric) = row.get::<_, Option<&str>>(1) {
            let time: time::OffsetDateTime = row.get(2);
            let delta = row.get(3);
            changes.add(metric.parse().unwrap(), time.try_into().unwrap(), delta);
            events += delta;
        }
    }
    assert!(events >= EVENTS, "{events} events: the pass must be as long as the tick");
    started.elapsed()
}

/// Waits until the fold of the statement runs.
async fn until_folds(services: &Services) {
    let upkeep = services.upkeep_backend().await;
    // The server shows the beginning of a long statement.
    services.until_backend(upkeep, "state = 'active' AND query ~ 'WITH seconds'").await;
}

/// Reads pages of history, which have to read every log row of the statement.
async fn read_history(services: &Services, notifier: Instance) {
    for unit in ["second", "year"] {
        let query = HistoryQuery {
            topic: format!("item-creation/{unit}").parse().unwrap(),
            from: None,
            to: None,
            limit: 100,
        };
        let url = format!("{}{}", services.stack.internal_url(notifier), query.path());
        let answer = internal::get(url).await.unwrap();
        let status = answer.status();
        let page = answer.text().await.unwrap();
        assert_eq!(status, 200, "{unit}: {page}");
        let page: HistoryPage = serde_json::from_str(&page).unwrap();
        let items: i64 = page.buckets.iter().map(|bucket| bucket.count).sum();
        let least = if unit == "year" { EVENTS } else { 100 };
        assert!(items >= least, "{unit}: {items} items");
    }
    assert!(is_unfolded(services).await, "history must be read before the fold ends");
}

/// Whether log rows of the statement are still to be folded.
async fn is_unfolded(services: &Services) -> bool {
    let many = "SELECT count(*) > 500000 FROM unfolded_count_log";
    services.client.query_one(many, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: `cargo xtask ci` runs it"]
async fn counts_go_on_during_the_fold_of_a_large_statement_and_stay_exact_if_the_leader_ends() {
    let pair = Replicas { stats_notifier: 2, ..Replicas::ONE };
    let mut services = Services::start_with(pair, "", &SETTINGS).await;
    services.until_ready().await;
    let (leader, standby) = services.leader_and_standby().await;
    // Few topics, because a subscriber keeps every state that it had.
    let topics: Vec<Topic> =
        ["item-creation/year", "transfers/hour"].map(|topic| topic.parse().unwrap()).into();
    let subscriber = services.subscribe_to(topics, None, ServiceKind::SseGateway);
    until_shown(&subscriber, 0).await;
    let loader = services.connect().await;
    let producer = services.produce();

    // By INSERT. The leader is killed in the middle of the fold.
    let insert = format!(
        "INSERT INTO items SELECT gen_random_uuid(), '{}', now() - random() * interval '10 years' \
         FROM generate_series(1, {EVENTS})",
        services.parents.base_item
    );
    loader.batch_execute(&insert).await.unwrap();
    let committed = Instant::now();
    until_shown(&subscriber, EVENTS).await;
    let waited = committed.elapsed();
    until_folds(&services).await;
    let pass = one_pass(&services).await;
    assert!(waited < MAX_PASSES * pass, "shown after {waited:?}, but one pass takes {pass:?}");
    read_history(&services, leader).await;
    let before = shown(&subscriber);
    until_shown(&subscriber, before + 20).await;
    assert!(is_unfolded(&services).await, "events of now must be shown before the fold ends");
    assert_eq!(observed(&subscriber.received()).stale, 0, "counts must never be stale");
    services.stack.kill(leader).await;
    services.until_leads(standby).await;
    let before = shown(&subscriber);
    until_shown(&subscriber, before + 20).await;
    assert!(is_unfolded(&services).await, "the new leader must not fold before it leads");
    services.stack.start_one(leader).unwrap();
    until_within(LONG, "the statement must be folded", async || {
        (!is_unfolded(&services).await).then_some(())
    })
    .await;

    // By COPY. The leader is frozen in the middle of the fold.
    let (leader, standby) = services.leader_and_standby().await;
    let before = shown(&subscriber);
    copy_items(&loader, services.parents.base_item).await;
    until_shown(&subscriber, before + EVENTS).await;
    until_folds(&services).await;
    read_history(&services, standby).await;
    let frozen = services.stack.freeze(leader).await.unwrap();
    services.until_leads(standby).await;
    let before = shown(&subscriber);
    until_shown(&subscriber, before + 20).await;
    assert!(is_unfolded(&services).await, "the new leader must not fold before it leads");
    frozen.thaw();

    producer.finish().await;
    let all = services.subscribe(ServiceKind::SseGateway).await;
    services.until_exact(&all, "after both statements").await;
    until_within(LONG, "the statement must be folded", async || {
        (!is_unfolded(&services).await).then_some(())
    })
    .await;
    services.until_rolled_up().await;
}

/// Copies items of random times of ten years.
async fn copy_items(client: &tokio_postgres::Client, base_item: Uuid) {
    const LINES: i64 = 10_000;
    let begun = time::OffsetDateTime::now_utc().unix_timestamp();
    let copy = "COPY items (id, base_item_id, created_at) FROM STDIN";
    let mut sink = pin!(client.copy_in::<_, bytes::Bytes>(copy).await.unwrap());
    for _ in 0..EVENTS / LINES {
        let mut lines = String::new();
        for _ in 0..LINES {
            let id = Uuid::new_v4();
            let random = i64::from(id.as_fields().0);
            let seconds = begun - random % (10 * 365 * 86_400);
            let time = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            writeln!(lines, "{id}\t{base_item}\t{time}").unwrap();
        }
        sink.send(lines.into()).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), u64::try_from(EVENTS).unwrap());
}
