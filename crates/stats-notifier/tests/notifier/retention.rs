//! Fine units that are kept for some days only.

use std::sync::Arc;

use domain::{BucketTime, Statistics, Topic};
use local_stack::test_database::TestDatabase;
use statistics_stream::Hub;
use statistics_stream::history::HistoryQuery;
use stats_notifier::history::{HistoryError, HistoryReader};
use stats_notifier::settings::Settings;
use stats_notifier::store::Statements;
use stats_notifier::term::Term;
use stats_notifier::verify::{Verifier, VerifyMode, VerifyReport};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{lead, lead_again, settings};

/// Settings that keep seconds and minutes for `days`, or for ever if 0.
fn keeping(database: &TestDatabase, days: u16) -> Settings {
    let mut settings = settings(database);
    (settings.retention.second_days, settings.retention.minute_days) = (days, days);
    settings
}

/// Inserts an item that was created `days` ago.
async fn item(client: &Client, base_item: Uuid, days: i32) {
    let insert = "INSERT INTO items VALUES (gen_random_uuid(), $1, \
        date_trunc('day', now(), 'UTC') + interval '1 hour' - make_interval(days => $2))";
    client.execute(insert, &[&base_item, &days]).await.unwrap();
}

async fn base_item(client: &Client) -> Uuid {
    let base_item = Uuid::now_v7();
    client.execute("INSERT INTO base_items VALUES ($1, 'a thing')", &[&base_item]).await.unwrap();
    base_item
}

/// The counts of seconds, minutes and hours that a hub shows, oldest first.
fn counts(hub: &Hub) -> [Vec<i64>; 3] {
    ["second", "minute", "hour"].map(|unit| {
        let topic: Topic = format!("item-creation/{unit}").parse().unwrap();
        let window = |statistics: &Statistics| statistics.snapshot(topic, usize::MAX);
        hub.with_state(window).unwrap().buckets.iter().map(|bucket| bucket.count).collect()
    })
}

/// The counts of seconds, minutes and hours in the rollups, expired or not, oldest first.
async fn stored(client: &Client) -> [Vec<i64>; 3] {
    let mut counts = [const { Vec::new() }; 3];
    for (unit, counts) in ["second", "minute", "hour"].iter().zip(&mut counts) {
        let find = "SELECT count FROM rollup WHERE unit = $1 ORDER BY bucket";
        *counts = client.query(find, &[unit]).await.unwrap().iter().map(|row| row.get(0)).collect();
    }
    counts
}

async fn history(
    settings: &Settings,
    unit: &str,
    from: Option<BucketTime>,
) -> Result<Vec<i64>, HistoryError> {
    let topic = format!("item-creation/{unit}").parse().unwrap();
    let history = HistoryReader::new(&settings.database, &settings.history).unwrap();
    let page = history.page(HistoryQuery { topic, from, to: None, limit: 100 }).await?;
    Ok(page.buckets.iter().map(|bucket| bucket.count).collect())
}

async fn verified(settings: &Settings) -> VerifyReport {
    let verifier = Verifier::connect(&settings.database).await.unwrap();
    verifier.verify(VerifyMode::OneSnapshot, &mut |_| ()).await.unwrap()
}

#[tokio::test]
async fn a_late_event_counts_in_the_units_that_keep_it_and_in_no_others() {
    let database = TestDatabase::create().await;
    let client = database.connect().await;
    let base_item = base_item(&client).await;
    let settings = keeping(&database, 90);
    for days in [100, 100, 1] {
        item(&client, base_item, days).await;
    }
    let (store, mut term, hub) = lead(&settings, Statements::default()).await;
    assert_eq!(counts(&hub), [vec![1], vec![1], vec![2, 1]]);

    item(&client, base_item, 100).await;
    item(&client, base_item, 1).await;
    term.tick(&store).await.unwrap();
    assert_eq!(counts(&hub), [vec![2], vec![2], vec![3, 2]]);
    // Before the flush the counts come from the log, after it from the rollups.
    for _ in 0..2 {
        assert_eq!(history(&settings, "second", None).await.unwrap(), [2]);
        assert_eq!(history(&settings, "hour", Some(BucketTime::MIN)).await.unwrap(), [3, 2]);
        let refused = history(&settings, "minute", Some(BucketTime::MIN)).await.unwrap_err();
        let HistoryError::NotKept { kept_since, .. } = refused else { panic!("{refused}") };
        let ninety_days = "SELECT date_trunc('day', now() - interval '90 days', 'UTC')";
        let expected: time::OffsetDateTime =
            client.query_one(ninety_days, &[]).await.unwrap().get(0);
        assert_eq!(kept_since, expected.try_into().unwrap());
        assert_eq!(history(&settings, "minute", Some(kept_since)).await.unwrap(), [2]);
        assert_eq!(verified(&settings).await.mismatches, 0);
        term.flush(&store).await.unwrap();
    }
    assert_eq!(stored(&client).await, counts(&hub));
}

#[tokio::test]
async fn expired_buckets_are_shown_to_the_end_of_the_term_and_then_gone() {
    let database = TestDatabase::create().await;
    let client = database.connect().await;
    let base_item = base_item(&client).await;
    for days in [100, 95, 1] {
        item(&client, base_item, days).await;
    }
    let all = keeping(&database, 0);
    let (store, mut term, hub) = lead(&all, Statements::default()).await;
    assert_eq!(counts(&hub), [vec![1, 1, 1], vec![1, 1, 1], vec![1, 1, 1]]);

    let settings = keeping(&database, 90);
    assert!(term.expire(&store, &settings.retention).await.unwrap());
    assert!(!term.expire(&store, &settings.retention).await.unwrap(), "the retention moves once");
    item(&client, base_item, 95).await;
    term.tick(&store).await.unwrap();
    term.flush(&store).await.unwrap();
    // This term has loaded the buckets that it shows, so its counts stay right.
    assert_eq!(counts(&hub), [vec![1, 2, 1], vec![1, 2, 1], vec![1, 2, 1]]);
    assert_eq!(history(&settings, "second", None).await.unwrap(), [1]);
    assert_eq!(stored(&client).await, [vec![1, 1, 1], vec![1, 1, 1], vec![1, 2, 1]]);
    assert_eq!(verified(&settings).await.mismatches, 0, "expired buckets are not compared");

    let mut batches = 1;
    while term.delete_expired(&store, 3).await.unwrap() {
        batches += 1;
    }
    assert!(batches > 1, "four rows in batches of three");
    assert_eq!(stored(&client).await, [vec![1], vec![1], vec![1, 2, 1]]);
    drop((term, store));

    let store = lead_again(&settings).await;
    let new_hub = Hub::new(statistics_stream::HubSettings::default());
    let mut term = Term::begin(&store, Arc::clone(&new_hub), &settings).await.unwrap();
    item(&client, base_item, 95).await;
    term.tick(&store).await.unwrap();
    assert_eq!(counts(&new_hub), [vec![1], vec![1], vec![1, 3, 1]]);
}
