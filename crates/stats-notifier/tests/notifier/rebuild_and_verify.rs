//! Verifying the counts, and counting all events again.

use std::collections::BTreeSet;

use statistics_stream::history::HistoryQuery;
use stats_notifier::history::{HistoryError, HistoryReader};
use stats_notifier::rebuild::take_over_and_rebuild;
use stats_notifier::store::StoreError;
use stats_notifier::verify::VerifyMode;

use crate::support::{DEADLINE, Fixture, coarser};

#[tokio::test]
async fn a_verification_finds_each_kind_of_wrong_count_and_a_rebuild_corrects_it() {
    let fixture = Fixture::create().await;
    let refused = fixture.verify(VerifyMode::OneSnapshot).await;
    assert!(matches!(refused, Err(StoreError::NeverCounted)), "{refused:?}");

    let mut leader = fixture.lead().await;
    let times = "'2023-12-30 10:00Z'::timestamptz + n * interval '7 h 13 s'";
    fixture.execute(&fixture.insert_items(times, "1, 50")).await;
    fixture.execute(&fixture.insert_transfers(times, "1, 30")).await;
    for place in ["the log", "the rollups"] {
        let whole = fixture.verify(VerifyMode::OneSnapshot).await.unwrap();
        assert_eq!((whole.mismatches, whole.events), (0, 81), "in {place}");
        let by_days = fixture.verify(VerifyMode::DayByDay { load_percent: 50 }).await.unwrap();
        assert_eq!(by_days, whole);
        leader.flush().await;
    }
    drop(leader);

    let without_triggers = |statement: &str| {
        format!(
            "SET session_replication_role = replica; {statement}; RESET session_replication_role"
        )
    };
    let outside = fixture.insert_items("'2023-12-30 11:00Z'", "1, 1");
    let faults = [
        ("UPDATE rollup SET count = count + 1 WHERE unit = 'second' AND metric = 'transfers'", 30),
        ("DELETE FROM rollup WHERE unit = 'minute' AND bucket > '2024-01-10Z'", 2),
        ("UPDATE rollup SET count = 0 WHERE unit = 'quarter'", 4),
        ("INSERT INTO rollup VALUES ('transfers', 'hour', '1850-01-01 00:00Z', 7)", 1),
        (&without_triggers(&outside), 4),
        (&without_triggers("DELETE FROM transfers"), 30),
    ];
    for (fault, at_least) in faults {
        fixture.execute(fault).await;
        for mode in [VerifyMode::OneSnapshot, VerifyMode::DayByDay { load_percent: 100 }] {
            let found = fixture.verify(mode).await.unwrap();
            assert!(found.mismatches >= at_least, "{fault}: {found:?}");
            let reported: BTreeSet<_> =
                found.first_mismatches.iter().map(|one| (one.topic, one.time)).collect();
            let expected = found.mismatches.min(100);
            assert_eq!(reported.len() as u64, expected, "{fault}: each is reported once");
        }
        let mut days = 0;
        let rebuilt = take_over_and_rebuild(&fixture.settings, &mut |_| days += 1).await.unwrap();
        assert_eq!(rebuilt.days, days);
        assert_eq!(fixture.verify(VerifyMode::OneSnapshot).await.unwrap().mismatches, 0, "{fault}");
        let counted = coarser(&fixture.counted_from_events().await);
        assert_eq!(fixture.rolled_up().await, counted, "{fault}");
    }
}

/// After a restore into another cluster, the cursor means nothing. No query may be answered from
/// the rollups before all events are counted again.
#[tokio::test]
async fn counts_of_another_cluster_are_not_shown() {
    let fixture = Fixture::create().await;
    drop(fixture.lead().await);
    let Fixture { settings, .. } = &fixture;
    let history = HistoryReader::new(&settings.database, &settings.history).unwrap();
    let topic = "item-creation/day".parse().unwrap();
    let query = HistoryQuery { topic, from: None, to: None, limit: 10 };
    assert_eq!(history.page(query).await.unwrap().buckets.len(), 1);
    for elsewhere in
        ["system_identifier = 1", "database_oid = 1", "snapshot = '4000000000:4000000000:'"]
    {
        fixture.execute(&format!("UPDATE rollup_cursor SET {elsewhere}")).await;
        let page = history.page(query).await;
        assert!(
            matches!(page, Err(HistoryError::Store(StoreError::NeverCounted))),
            "{elsewhere}: {page:?}"
        );
        let verified = fixture.verify(VerifyMode::OneSnapshot).await;
        assert!(matches!(verified, Err(StoreError::NeverCounted)), "{elsewhere}: {verified:?}");
        take_over_and_rebuild(settings, &mut |_| ()).await.unwrap();
        assert_eq!(history.page(query).await.unwrap().buckets.len(), 1, "{elsewhere}");
    }
}

/// Events that are committed during a rebuild are past the new cursor, so the next flush counts
/// them.
#[tokio::test]
async fn writers_continue_during_a_rebuild() {
    let fixture = Fixture::create().await;
    drop(fixture.lead().await);
    let slow = fixture.database.connect().await;
    let insert = fixture.insert_items("'2024-02-29Z'", "1, 1");
    slow.batch_execute(&format!("BEGIN; {insert}")).await.unwrap();
    take_over_and_rebuild(&fixture.settings, &mut |_| ()).await.unwrap();
    slow.batch_execute("COMMIT").await.unwrap();
    let verified = fixture.verify(VerifyMode::OneSnapshot).await.unwrap();
    assert_eq!(verified.mismatches, 0, "the event is in the log");
    fixture.lead_again().await.flush().await;
    assert_eq!(fixture.rolled_up().await, coarser(&fixture.counted_from_events().await));
}

/// A lock of another session simulates a server that hangs after it has accepted the connection.
#[tokio::test]
async fn a_verification_does_not_wait_for_a_server_that_hangs() {
    let fixture = Fixture::create().await;
    fixture.execute("BEGIN; LOCK TABLE refinery_schema_history").await;
    let verified = tokio::time::timeout(DEADLINE, fixture.verify(VerifyMode::OneSnapshot))
        .await
        .expect("it must end");
    assert!(matches!(verified, Err(StoreError::Timeout(_))), "{verified:?}");
}
