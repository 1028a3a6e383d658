//! Pages of history show the same counts as the live windows.

use domain::{Bucket, BucketTime, TimeUnit, Topic};
use local_stack::test_database::TestDatabase;
use statistics_stream::history::HistoryQuery;
use stats_notifier::history::HistoryReader;
use stats_notifier::store::Statements;

use crate::support::{DEADLINE, Parents, insert_parents, lead, settings};

/// Reads all pages of a period, one after another.
async fn pages(history: &HistoryReader, query: HistoryQuery) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    let mut query = query;
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

/// The server must stop working on a page whose time limit has passed.
#[tokio::test]
async fn a_page_that_takes_too_long_ends_in_the_server_too() {
    let database = TestDatabase::create().await;
    let mut settings = settings(&database);
    settings.history.timeout = service_kit::settings::NonZeroDuration::from_millis(300);
    let history = HistoryReader::new(&settings.database, &settings.history).unwrap();
    let (blocker, observer) = (database.connect().await, database.connect().await);
    blocker.batch_execute("BEGIN; LOCK TABLE count_log, rollup, items").await.unwrap();
    let topic = "item-creation/day".parse().unwrap();
    history.page(HistoryQuery { topic, from: None, to: None, limit: 1 }).await.unwrap_err();
    let waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let timed_out = std::time::Instant::now();
    while !observer.query(waiting, &[]).await.unwrap().is_empty() {
        assert!(timed_out.elapsed() < DEADLINE, "the query of the page must end");
    }
}

#[tokio::test]
async fn history_is_what_the_windows_show_at_every_version() {
    let database = TestDatabase::create().await;
    let producer = database.connect().await;
    let Parents { base_item, user, item } = insert_parents(&producer).await;
    let settings = settings(&database);
    let (store, mut term, hub) = lead(&settings, Statements::default()).await;
    let history = HistoryReader::new(&settings.database, &settings.history).unwrap();
    let time = "'2024-02-28 23:00Z'::timestamptz + n * interval '17 min 3.0007 s'";
    let statements = [
        format!(
            "INSERT INTO items SELECT gen_random_uuid(), '{base_item}', {time} FROM generate_series(0, 150) AS n"
        ),
        format!(
            "INSERT INTO transfers SELECT gen_random_uuid(), {time}, '{user}', '{item}' FROM generate_series(0, 150) AS n"
        ),
        "UPDATE items SET created_at = created_at + interval '1 day' WHERE created_at < '2024-02-29Z'"
            .to_owned(),
        "DELETE FROM transfers WHERE \"timestamp\" > '2024-03-01Z'".to_owned(),
    ];
    for (place, statement) in statements.iter().enumerate() {
        producer.batch_execute(statement).await.unwrap();
        term.tick(&store).await.unwrap();
        for topic in Topic::all() {
            let window =
                hub.with_state(|statistics| statistics.snapshot(topic, usize::MAX)).unwrap();
            assert!(window.buckets.len() < window.window, "all events fit into each window");
            // A count that fell to zero stays, except for milliseconds, which are read from the
            // events.
            let mut expected = window.buckets;
            if topic.unit == TimeUnit::Millisecond {
                expected.retain(|bucket| bucket.count != 0);
            }
            for limit in [1_000, 7] {
                let all = HistoryQuery { topic, from: None, to: None, limit };
                assert_eq!(
                    pages(&history, all).await,
                    expected,
                    "{topic} by pages of {limit} after {statement}"
                );
            }
            if let [_, inner @ .., end] = expected.as_slice()
                && let Some(first) = inner.first()
            {
                let half_open =
                    HistoryQuery { topic, from: Some(first.time), to: Some(end.time), limit: 5 };
                assert_eq!(pages(&history, half_open).await, inner, "{topic} after {statement}");
            }
        }
        // The counts of half of the steps are in the log, the others in the rollups.
        if place % 2 == 1 {
            term.flush(&store).await.unwrap();
            while term.purge(&store, 50).await.unwrap() {}
        }
    }
}

#[tokio::test]
async fn the_first_and_the_last_year_have_history() {
    let database = TestDatabase::create().await;
    let producer = database.connect().await;
    let Parents { base_item, .. } = insert_parents(&producer).await;
    for time in ["0001-01-01 00:00:00Z", "9999-12-31 23:59:59.999999Z"] {
        let insert =
            format!("INSERT INTO items VALUES (gen_random_uuid(), '{base_item}', '{time}')");
        producer.batch_execute(&insert).await.unwrap();
    }
    let settings = settings(&database);
    let _leading = lead(&settings, Statements::default()).await;
    let history = HistoryReader::new(&settings.database, &settings.history).unwrap();
    for unit in TimeUnit::ALL {
        let topic = Topic::new(domain::Metric::ItemCreation, unit);
        let all = HistoryQuery { topic, from: Some(BucketTime::MIN), to: None, limit: 1 };
        let times: Vec<_> = pages(&history, all).await.iter().map(|bucket| bucket.time).collect();
        assert_eq!(
            (times[0], times[2]),
            (BucketTime::MIN, unit.truncate(BucketTime::MAX)),
            "{unit}"
        );
        let none = HistoryQuery {
            topic,
            from: Some(BucketTime::MAX),
            to: Some(BucketTime::MAX),
            limit: 1,
        };
        assert!(pages(&history, none).await.is_empty(), "{unit}");
    }
}
