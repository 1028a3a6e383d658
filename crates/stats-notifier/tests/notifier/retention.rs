//! Fine units that are kept for some days only.

use domain::BucketTime;
use statistics_stream::history::HistoryQuery;
use stats_notifier::history::{HistoryError, HistoryReader};
use stats_notifier::verify::VerifyMode;

use crate::support::{Fixture, Leader};

/// A database without items.
async fn without_items() -> Fixture {
    let fixture = Fixture::create().await;
    fixture.execute("DELETE FROM items").await;
    fixture
}

/// Keeps seconds and minutes for `days`, or for ever if 0.
fn keep(fixture: &mut Fixture, days: u16) {
    let retention = &mut fixture.settings.retention;
    (retention.second_days, retention.minute_days) = (days, days);
}

/// Inserts an item that was created `days` ago.
async fn item(fixture: &Fixture, days: i32) {
    let time = "date_trunc('day', now(), 'UTC') + interval '1 hour' - make_interval(days => n)";
    fixture.execute(&fixture.insert_items(time, &format!("{days}, {days}"))).await;
}

/// The counts of seconds, minutes and hours that a leader shows, oldest first.
fn counts(leader: &Leader) -> [Vec<i64>; 3] {
    ["second", "minute", "hour"].map(|unit| {
        let window = leader.window(&format!("item-creation/{unit}"));
        window.buckets.iter().map(|bucket| bucket.count).collect()
    })
}

/// The counts of seconds, minutes and hours in the rollups, expired or not, oldest first.
async fn stored(fixture: &Fixture) -> [Vec<i64>; 3] {
    let mut counts = [const { Vec::new() }; 3];
    for (unit, counts) in ["second", "minute", "hour"].iter().zip(&mut counts) {
        let find = "SELECT count FROM rollup WHERE unit = $1 ORDER BY bucket";
        let rows = fixture.producer.query(find, &[unit]).await.unwrap();
        *counts = rows.iter().map(|row| row.get(0)).collect();
    }
    counts
}

async fn history(
    fixture: &Fixture,
    unit: &str,
    from: Option<BucketTime>,
) -> Result<Vec<i64>, HistoryError> {
    let topic = format!("item-creation/{unit}").parse().unwrap();
    let settings = &fixture.settings;
    let history = HistoryReader::new(&settings.database, &settings.history).unwrap();
    let page = history.page(HistoryQuery { topic, from, to: None, limit: 100 }).await?;
    Ok(page.buckets.iter().map(|bucket| bucket.count).collect())
}

async fn mismatches(fixture: &Fixture) -> u64 {
    fixture.verify(VerifyMode::OneSnapshot).await.unwrap().mismatches
}

#[tokio::test]
async fn a_late_event_counts_in_the_units_that_keep_it_and_in_no_others() {
    let mut fixture = without_items().await;
    keep(&mut fixture, 90);
    for days in [100, 100, 1] {
        item(&fixture, days).await;
    }
    let mut leader = fixture.lead().await;
    assert_eq!(counts(&leader), [vec![1], vec![1], vec![2, 1]]);

    item(&fixture, 100).await;
    item(&fixture, 1).await;
    leader.tick().await;
    assert_eq!(counts(&leader), [vec![2], vec![2], vec![3, 2]]);
    // Before the flush the counts come from the log, after it from the rollups.
    for _ in 0..2 {
        assert_eq!(history(&fixture, "second", None).await.unwrap(), [2]);
        assert_eq!(history(&fixture, "hour", Some(BucketTime::MIN)).await.unwrap(), [3, 2]);
        let refused = history(&fixture, "minute", Some(BucketTime::MIN)).await.unwrap_err();
        let HistoryError::NotKept { kept_since, .. } = refused else { panic!("{refused}") };
        let ninety_days = "SELECT date_trunc('day', now() - interval '90 days', 'UTC')";
        let expected: time::OffsetDateTime =
            fixture.producer.query_one(ninety_days, &[]).await.unwrap().get(0);
        assert_eq!(kept_since, expected.try_into().unwrap());
        assert_eq!(history(&fixture, "minute", Some(kept_since)).await.unwrap(), [2]);
        assert_eq!(mismatches(&fixture).await, 0);
        leader.flush().await;
    }
    assert_eq!(stored(&fixture).await, counts(&leader));
}

#[tokio::test]
async fn expired_buckets_are_shown_to_the_end_of_the_term_and_then_gone() {
    let mut fixture = without_items().await;
    for days in [100, 95, 1] {
        item(&fixture, days).await;
    }
    let mut leader = fixture.lead().await;
    assert_eq!(counts(&leader), [vec![1, 1, 1], vec![1, 1, 1], vec![1, 1, 1]]);

    keep(&mut fixture, 90);
    let retention = &fixture.settings.retention;
    assert!(leader.upkeep.expire(&leader.for_upkeep, retention).await.unwrap());
    let again = leader.upkeep.expire(&leader.for_upkeep, retention).await.unwrap();
    assert!(!again, "the retention moves once");
    item(&fixture, 95).await;
    leader.tick().await;
    leader.flush().await;
    // This term has loaded the buckets that it shows, so its counts stay right.
    assert_eq!(counts(&leader), [vec![1, 2, 1], vec![1, 2, 1], vec![1, 2, 1]]);
    assert_eq!(history(&fixture, "second", None).await.unwrap(), [1]);
    assert_eq!(stored(&fixture).await, [vec![1, 1, 1], vec![1, 1, 1], vec![1, 2, 1]]);
    assert_eq!(mismatches(&fixture).await, 0, "expired buckets are not compared");

    let mut batches = 1;
    while leader.upkeep.delete_expired(&leader.for_upkeep, 3).await.unwrap() {
        batches += 1;
    }
    assert!(batches > 1, "four rows in batches of three");
    assert_eq!(stored(&fixture).await, [vec![1], vec![1], vec![1, 2, 1]]);
    drop(leader);

    let mut leader = fixture.lead_again().await;
    item(&fixture, 95).await;
    leader.tick().await;
    assert_eq!(counts(&leader), [vec![1], vec![1], vec![1, 3, 1]]);
}
