//! Pages of history show the same counts as the live windows.

use domain::{Bucket, BucketTime, TimeUnit, Topic};
use service_kit::settings::NonZeroDuration;
use statistics_stream::history::HistoryQuery;
use stats_notifier::history::HistoryReader;

use crate::support::{DEADLINE, Fixture};

fn reader(fixture: &Fixture) -> HistoryReader {
    HistoryReader::new(&fixture.settings.database, &fixture.settings.history).unwrap()
}

/// Reads all pages of a period, one after another.
async fn pages(history: &HistoryReader, mut query: HistoryQuery) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    loop {
        let page = history.page(query).await.unwrap();
        assert!(page.buckets.len() <= query.limit);
        assert!(query.from.is_none_or(|from| from == page.from));
        buckets.extend(page.buckets);
        match page.next {
            Some(next) => query.from = Some(next),
            None => return buckets,
        }
    }
}

/// A time shortly after the start of a bucket.
fn within(bucket: BucketTime) -> BucketTime {
    BucketTime::from_unix_milliseconds(bucket.unix_milliseconds() + 1).unwrap()
}

/// The server must stop working on a page whose time limit has passed.
#[tokio::test]
async fn a_page_that_takes_too_long_ends_in_the_server_too() {
    let mut fixture = Fixture::create().await;
    fixture.settings.history.timeout = NonZeroDuration::from_millis(300);
    fixture.execute("BEGIN; LOCK TABLE count_log, rollup, items").await;
    let topic = "item-creation/day".parse().unwrap();
    let query = HistoryQuery { topic, from: None, to: None, limit: 1 };
    reader(&fixture).page(query).await.unwrap_err();
    let observer = fixture.database.connect().await;
    let waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let timed_out = std::time::Instant::now();
    while !observer.query(waiting, &[]).await.unwrap().is_empty() {
        assert!(timed_out.elapsed() < DEADLINE, "the query of the page must end");
    }
}

#[tokio::test]
async fn history_is_what_the_windows_show_at_every_version() {
    let mut fixture = Fixture::create().await;
    // Many pages are read between two ticks.
    fixture.settings.leader.session_timeout = NonZeroDuration::from_millis(120_000);
    let mut leader = fixture.lead().await;
    let history = reader(&fixture);
    let time = "'2024-02-28 23:00Z'::timestamptz + n * interval '17 min 3.0007 s'";
    let statements = [
        &fixture.insert_items(time, "0, 150"),
        &fixture.insert_transfers(time, "0, 150"),
        "UPDATE items SET created_at = created_at + interval '1 day' WHERE created_at < '2024-02-29Z'",
        "DELETE FROM transfers WHERE \"timestamp\" > '2024-03-01Z'",
    ];
    for (place, statement) in statements.into_iter().enumerate() {
        fixture.execute(statement).await;
        leader.tick().await;
        for topic in Topic::all() {
            let window = leader.window(&topic.to_string());
            assert!(window.buckets.len() < window.window, "all events fit into each window");
            // A count that fell to zero stays, except for milliseconds, which are read from the
            // events.
            let mut expected = window.buckets;
            if topic.unit == TimeUnit::Millisecond {
                expected.retain(|bucket| bucket.count != 0);
            }
            for limit in [1_000, 7] {
                let all = HistoryQuery { topic, from: None, to: None, limit };
                let shown = pages(&history, all).await;
                assert_eq!(shown, expected, "{topic} by pages of {limit} after {statement}");
            }
            if let [_, inner @ .., end] = expected.as_slice()
                && let Some(first) = inner.first()
            {
                let half_open =
                    HistoryQuery { topic, from: Some(first.time), to: Some(end.time), limit: 5 };
                assert_eq!(pages(&history, half_open).await, inner, "{topic} after {statement}");
            }
            // A period that begins and ends within a bucket has that in which it ends, whole.
            if let ([first, rest @ ..], Some(end)) = (expected.as_slice(), expected.last()) {
                let [from, to] = [first, end].map(|bucket| Some(within(bucket.time)));
                let unaligned = HistoryQuery { topic, from, to, limit: 40 };
                let shown = pages(&history, unaligned).await;
                assert_eq!(shown, rest, "{topic} within buckets after {statement}");
            }
        }
        // The counts of half of the steps are in the log, the others in the rollups.
        if place % 2 == 1 {
            leader.flush().await;
            leader.purge(50).await;
        }
    }
}

#[tokio::test]
async fn the_first_and_the_last_year_have_history() {
    let fixture = Fixture::create().await;
    for time in ["'0001-01-01 00:00:00Z'", "'9999-12-31 23:59:59.999999Z'"] {
        fixture.execute(&fixture.insert_items(time, "1, 1")).await;
    }
    let _leading = fixture.lead().await;
    let history = reader(&fixture);
    let (first, last) = (BucketTime::MIN, BucketTime::MAX);
    for unit in TimeUnit::ALL {
        let topic = Topic::new(domain::Metric::ItemCreation, unit);
        let all = HistoryQuery { topic, from: Some(first), to: None, limit: 1 };
        let times: Vec<_> = pages(&history, all).await.iter().map(|bucket| bucket.time).collect();
        assert_eq!((times[0], times[2]), (first, unit.truncate(last)), "{unit}");
        let none = HistoryQuery { topic, from: Some(last), to: Some(last), limit: 1 };
        assert!(pages(&history, none).await.is_empty(), "{unit}");
    }
}
