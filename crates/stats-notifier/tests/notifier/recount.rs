//! Verifying the counts, and counting all events again.

use std::collections::BTreeSet;

use local_stack::test_database::TestDatabase;
use statistics_stream::history::HistoryQuery;
use stats_notifier::history::{HistoryError, HistoryReader};
use stats_notifier::rebuild::take_over_and_rebuild;
use stats_notifier::settings::Settings;
use stats_notifier::store::{Statements, StoreError};
use stats_notifier::verify::{Verifier, VerifyMode, VerifyReport};
use uuid::Uuid;

use crate::support::{
    DEADLINE, Parents, coarser, counted_from_events, insert_parents, lead, rolled_up, settings,
};

async fn verified(settings: &Settings, mode: VerifyMode) -> VerifyReport {
    let verifier = Verifier::connect(&settings.database).await.unwrap();
    verifier.verify(mode, &mut |_| ()).await.unwrap()
}

#[tokio::test]
async fn a_check_finds_each_kind_of_wrong_count_and_a_rebuild_corrects_it() {
    let database = TestDatabase::create().await;
    let client = database.connect().await;
    let Parents { base_item, user, item } = insert_parents(&client).await;
    let settings = settings(&database);
    let never = Verifier::connect(&settings.database).await.unwrap();
    let refused = never.verify(VerifyMode::OneSnapshot, &mut |_| ()).await;
    assert!(matches!(refused, Err(StoreError::NeverCounted)), "{refused:?}");

    let (store, mut term, _) = lead(&settings, Statements::default()).await;
    let times = "'2023-12-30 10:00Z'::timestamptz + n * interval '7 h 13 s'";
    let written = format!(
        "INSERT INTO items SELECT gen_random_uuid(), '{base_item}', {times} FROM generate_series(1, 50) AS n; \
         INSERT INTO transfers SELECT gen_random_uuid(), {times}, '{user}', '{item}' FROM generate_series(1, 30) AS n"
    );
    client.batch_execute(&written).await.unwrap();
    for _ in 0..2 {
        let whole = verified(&settings, VerifyMode::OneSnapshot).await;
        assert_eq!(
            (whole.mismatches, whole.events),
            (0, 81),
            "first in the log, then in the rollups"
        );
        assert_eq!(verified(&settings, VerifyMode::DayByDay { load_percent: 50 }).await, whole);
        term.flush(&store).await.unwrap();
    }
    drop((term, store));

    let outside =
        format!("INSERT INTO items VALUES (gen_random_uuid(), '{base_item}', '2023-12-30 11:00Z')");
    let faults = [
        ("UPDATE rollup SET count = count + 1 WHERE unit = 'second' AND metric = 'transfers'".to_owned(), 30),
        ("DELETE FROM rollup WHERE unit = 'minute' AND bucket > '2024-01-10Z'".to_owned(), 2),
        ("UPDATE rollup SET count = 0 WHERE unit = 'quarter'".to_owned(), 4),
        ("INSERT INTO rollup VALUES ('transfers', 'hour', '1850-01-01 00:00Z', 7)".to_owned(), 1),
        (format!("SET session_replication_role = replica; {outside}; RESET session_replication_role"), 4),
        (
            "SET session_replication_role = replica; DELETE FROM transfers; RESET session_replication_role"
                .to_owned(),
            30,
        ),
    ];
    for (fault, at_least) in faults {
        client.batch_execute(&fault).await.unwrap();
        for mode in [VerifyMode::OneSnapshot, VerifyMode::DayByDay { load_percent: 100 }] {
            let found = verified(&settings, mode).await;
            assert!(found.mismatches >= at_least, "{fault}: {found:?}");
            let reported: BTreeSet<_> =
                found.first_mismatches.iter().map(|one| (one.topic, one.time)).collect();
            assert_eq!(
                reported.len() as u64,
                found.mismatches.min(100),
                "{fault}: each is reported once"
            );
        }
        let mut days = 0;
        let rebuilt = take_over_and_rebuild(&settings, &mut |_| days += 1).await.unwrap();
        assert_eq!(rebuilt.days, days);
        assert_eq!(verified(&settings, VerifyMode::OneSnapshot).await.mismatches, 0, "{fault}");
        assert_eq!(
            rolled_up(&client).await,
            coarser(&counted_from_events(&client).await),
            "{fault}"
        );
    }
}

/// After a restore into another cluster, the cursor means nothing. No query may be answered from
/// the rollups before all events are counted again.
#[tokio::test]
async fn counts_of_another_cluster_are_not_shown() {
    let database = TestDatabase::create().await;
    let client = database.connect().await;
    insert_parents(&client).await;
    let settings = settings(&database);
    drop(lead(&settings, Statements::default()).await);
    let history = HistoryReader::new(&settings.database, &settings.history).unwrap();
    let topic = "item-creation/day".parse().unwrap();
    let query = HistoryQuery { topic, from: None, to: None, limit: 10 };
    assert_eq!(history.page(query).await.unwrap().buckets.len(), 1);
    for elsewhere in
        ["system_identifier = 1", "database_oid = 1", "snapshot = '4000000000:4000000000:'"]
    {
        client.batch_execute(&format!("UPDATE rollup_cursor SET {elsewhere}")).await.unwrap();
        let page = history.page(query).await;
        assert!(
            matches!(page, Err(HistoryError::Store(StoreError::NeverCounted))),
            "{elsewhere}: {page:?}"
        );
        let verifier = Verifier::connect(&settings.database).await.unwrap();
        let verified = verifier.verify(VerifyMode::OneSnapshot, &mut |_| ()).await;
        assert!(matches!(verified, Err(StoreError::NeverCounted)), "{elsewhere}: {verified:?}");
        take_over_and_rebuild(&settings, &mut |_| ()).await.unwrap();
        assert_eq!(history.page(query).await.unwrap().buckets.len(), 1, "{elsewhere}");
    }
}

/// Events that are committed during a rebuild are past the new cursor, so the next flush counts
/// them.
#[tokio::test]
async fn writers_continue_during_a_rebuild() {
    let database = TestDatabase::create().await;
    let client = database.connect().await;
    let Parents { base_item, .. } = insert_parents(&client).await;
    let settings = settings(&database);
    drop(lead(&settings, Statements::default()).await);
    let insert =
        format!("INSERT INTO items VALUES ('{}', '{base_item}', '2024-02-29Z')", Uuid::now_v7());
    let slow = database.connect().await;
    slow.batch_execute("BEGIN").await.unwrap();
    slow.batch_execute(&insert).await.unwrap();
    take_over_and_rebuild(&settings, &mut |_| ()).await.unwrap();
    slow.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        verified(&settings, VerifyMode::OneSnapshot).await.mismatches,
        0,
        "the event is in the log"
    );
    let store = crate::support::lead_again(&settings).await;
    let term = store.begin_term().await.unwrap();
    store.flush(term).await.unwrap();
    assert_eq!(rolled_up(&client).await, coarser(&counted_from_events(&client).await));
}

/// A lock of another session simulates a server that hangs after it has accepted the connection.
#[tokio::test]
async fn a_check_does_not_wait_for_a_server_that_hangs() {
    let database = TestDatabase::create().await;
    let blocker = database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE refinery_schema_history").await.unwrap();
    let settings = settings(&database);
    let connected = tokio::time::timeout(DEADLINE, Verifier::connect(&settings.database))
        .await
        .expect("it must end");
    assert!(matches!(connected, Err(StoreError::Timeout(_))), "{connected:?}");
}
