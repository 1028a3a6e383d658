//! Drives terms step by step, and compares what they show and store after each step with the
//! events.

use std::sync::Arc;

use local_stack::test_database::TestDatabase;
use statistics_stream::{Hub, HubSettings};
use stats_notifier::store::{Statements, Store, StoreError};
use stats_notifier::term::Term;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::support::{
    DEADLINE, Parents, coarser, counted_from_events, insert_parents, lead, lead_again, rolled_up,
    settings, shown,
};

#[tokio::test]
async fn every_kind_of_statement_is_counted_once() {
    let database = TestDatabase::create().await;
    let producer = database.connect().await;
    let Parents { base_item, user, item } = insert_parents(&producer).await;
    // The item exists before the first term, so the load counts it.
    let (store, mut term, hub) = lead(&settings(&database), Statements::default()).await;
    assert_eq!(shown(&hub), counted_from_events(&producer).await);

    let give = format!(
        "SELECT gen_random_uuid(), now() + n * interval '1 s', '{user}'::uuid, '{item}'::uuid"
    );
    let statements = [
        format!(
            "INSERT INTO items SELECT gen_random_uuid(), '{base_item}', now() FROM generate_series(1, 50)"
        ),
        format!("INSERT INTO transfers {give} FROM generate_series(1, 50) AS n"),
        "UPDATE transfers SET \"timestamp\" = \"timestamp\" + interval '1 day'".to_owned(),
        "UPDATE transfers SET id = id".to_owned(),
        "DELETE FROM transfers WHERE \"timestamp\" > now() + interval '1 day 30 s'".to_owned(),
        format!("BEGIN; INSERT INTO transfers {give} FROM generate_series(1, 9) AS n; ROLLBACK"),
        format!(
            "BEGIN; SAVEPOINT a; INSERT INTO transfers {give} FROM generate_series(1, 3) AS n; ROLLBACK TO a; \
             SAVEPOINT b; INSERT INTO transfers {give} FROM generate_series(1, 4) AS n; COMMIT"
        ),
        format!(
            "INSERT INTO items VALUES ('{item}', '{base_item}', now()) ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at"
        ),
        format!(
            "MERGE INTO items USING (SELECT '{item}'::uuid AS id) AS source ON items.id = source.id WHEN MATCHED THEN UPDATE SET created_at = '2000-02-29 00:00+00'"
        ),
        "DELETE FROM transfers".to_owned(),
    ];
    for statement in statements {
        producer.batch_execute(&statement).await.unwrap();
        term.tick(&store).await.unwrap();
        assert_eq!(shown(&hub), counted_from_events(&producer).await, "after {statement}");
        term.flush(&store).await.unwrap();
        assert_eq!(rolled_up(&producer).await, coarser(&shown(&hub)), "after {statement}");
        while term.purge(&store, 20).await.unwrap() {}
    }
    // A transaction of another test may keep the last rows for a while, because snapshots are of
    // the whole cluster.
    let purge = async {
        let count = "SELECT count(*) FROM count_log";
        while producer.query_one(count, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            term.tick(&store).await.unwrap();
            term.flush(&store).await.unwrap();
            term.purge(&store, 20).await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, purge)
        .await
        .expect("rows that ticks and flushes have counted must be purged");
}

#[tokio::test]
async fn a_transaction_held_open_across_ticks_and_flushes_is_counted_when_it_commits() {
    let database = TestDatabase::create().await;
    let (slow, quick) = (database.connect().await, database.connect().await);
    let Parents { base_item, .. } = insert_parents(&quick).await;
    let (store, mut term, hub) = lead(&settings(&database), Statements::default()).await;
    let insert = format!("INSERT INTO items VALUES (gen_random_uuid(), '{base_item}', now())");
    slow.batch_execute(&format!("BEGIN; {insert}")).await.unwrap();
    for _ in 0..3 {
        quick.batch_execute(&insert).await.unwrap();
        term.tick(&store).await.unwrap();
        term.flush(&store).await.unwrap();
        while term.purge(&store, 1).await.unwrap() {}
        assert_eq!(shown(&hub), counted_from_events(&quick).await);
    }
    slow.batch_execute("COMMIT").await.unwrap();
    assert_eq!(term.tick(&store).await.unwrap(), 1);
    assert_eq!(shown(&hub), counted_from_events(&quick).await);
    term.flush(&store).await.unwrap();
    assert_eq!(rolled_up(&quick).await, coarser(&shown(&hub)));
}

#[tokio::test]
async fn a_new_leader_shows_what_the_old_one_had_not_flushed() {
    let database = TestDatabase::create().await;
    let producer = database.connect().await;
    let Parents { base_item, .. } = insert_parents(&producer).await;
    let settings = settings(&database);
    let (store, mut term, _) = lead(&settings, Statements::default()).await;
    let insert = format!(
        "INSERT INTO items SELECT gen_random_uuid(), '{base_item}', now() + n * interval '7 days' FROM generate_series(1, 30) AS n"
    );
    producer.batch_execute(&insert).await.unwrap();
    term.tick(&store).await.unwrap();
    drop((term, store));
    let store = lead_again(&settings).await;
    let hub = Hub::new(HubSettings::default());
    let mut term = Term::begin(&store, Arc::clone(&hub), &settings).await.unwrap();
    assert_eq!(shown(&hub), counted_from_events(&producer).await);
    term.flush(&store).await.unwrap();
    assert_eq!(rolled_up(&producer).await, coarser(&shown(&hub)));
}

/// A time limit would end each term before it could begin, if the log takes longer to fold.
#[tokio::test]
async fn a_long_log_is_folded_before_a_term_begins_and_without_a_time_limit() {
    let database = TestDatabase::create().await;
    let producer = database.connect().await;
    let Parents { base_item, .. } = insert_parents(&producer).await;
    let mut settings = settings(&database);
    drop(lead(&settings, Statements::default()).await);
    let long = "CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(1.5); RETURN NEW; END $$;
        CREATE TRIGGER take_long BEFORE UPDATE OF snapshot ON rollup_cursor FOR EACH ROW EXECUTE FUNCTION take_long()";
    producer.batch_execute(long).await.unwrap();
    let insert = format!(
        "INSERT INTO items SELECT gen_random_uuid(), '{base_item}', '2024-01-01'::timestamptz + n * interval '1 minute' \
         FROM generate_series(1, 20000) AS n"
    );
    producer.batch_execute(&insert).await.unwrap();
    settings.leader.statement_timeout = service_kit::settings::NonZeroDuration::from_millis(1_000);
    settings.flush.long_log_bytes = 1_000_000;
    let store = lead_again(&settings).await;
    assert!(store.log_bytes().await.unwrap() > settings.flush.long_log_bytes);
    let hub = Hub::new(HubSettings::default());
    let mut term = Term::begin(&store, Arc::clone(&hub), &settings).await.unwrap();
    let counted = coarser(&counted_from_events(&producer).await);
    assert_eq!(
        rolled_up(&producer).await,
        counted,
        "the log must be folded before the term begins"
    );
    let day = "item-creation/day".parse().unwrap();
    let days: i64 = hub
        .with_state(|all| all.snapshot(day, usize::MAX))
        .unwrap()
        .buckets
        .iter()
        .map(|one| one.count)
        .sum();
    assert_eq!(days, 20_001, "each event must be shown once");
    // A flush has the time limit that this fold would have missed.
    assert!(matches!(term.flush(&store).await, Err(StoreError::Timeout(_))));
}

#[tokio::test]
async fn a_deposed_leader_writes_nothing() {
    let database = TestDatabase::create().await;
    let producer = database.connect().await;
    let Parents { base_item, .. } = insert_parents(&producer).await;
    let settings = settings(&database);
    let (old_store, mut old_term, _) = lead(&settings, Statements::default()).await;
    let new_store =
        Store::connect(&settings.database, &settings.leader, Statements::default()).await.unwrap();
    let new_hub = Hub::new(HubSettings::default());
    let mut new_term = Term::begin(&new_store, Arc::clone(&new_hub), &settings).await.unwrap();
    let insert = format!("INSERT INTO items VALUES (gen_random_uuid(), '{base_item}', now())");
    producer.batch_execute(&insert).await.unwrap();
    old_term.tick(&old_store).await.unwrap();
    let before = rolled_up(&producer).await;
    assert!(matches!(old_term.flush(&old_store).await, Err(StoreError::Deposed(_))));
    assert!(matches!(old_term.purge(&old_store, 10).await, Ok(_) | Err(StoreError::Deposed(_))));
    assert_eq!(rolled_up(&producer).await, before);
    new_term.tick(&new_store).await.unwrap();
    assert_eq!(shown(&new_hub), counted_from_events(&producer).await);
}

#[tokio::test]
async fn events_restored_into_another_database_are_counted_again() {
    let database = TestDatabase::create().await;
    let producer = database.connect().await;
    let Parents { base_item, .. } = insert_parents(&producer).await;
    let settings = settings(&database);
    drop(lead(&settings, Statements::default()).await);
    let insert = format!("INSERT INTO items VALUES ('{}', '{base_item}', now())", Uuid::now_v7());
    for elsewhere in [
        "UPDATE rollup_cursor SET system_identifier = 1",
        "UPDATE rollup_cursor SET database_oid = 1",
        "UPDATE rollup_cursor SET snapshot = '4000000000:4000000000:'",
    ] {
        // A restore brings counts of another moment.
        producer.batch_execute("DELETE FROM items WHERE created_at > '2001-01-01'").await.unwrap();
        producer.batch_execute(&insert).await.unwrap();
        producer
            .batch_execute("UPDATE rollup SET count = 77; DELETE FROM count_log")
            .await
            .unwrap();
        producer.batch_execute(elsewhere).await.unwrap();
        let store = lead_again(&settings).await;
        let hub = Hub::new(HubSettings::default());
        let term = Term::begin(&store, Arc::clone(&hub), &settings).await.unwrap();
        assert_eq!(shown(&hub), counted_from_events(&producer).await, "{elsewhere}");
        assert_eq!(rolled_up(&producer).await, coarser(&shown(&hub)), "{elsewhere}");
        drop((term, store));
    }
}

/// There are more milliseconds than a window holds.
#[tokio::test]
async fn milliseconds_are_loaded_from_the_newest_events() {
    let database = TestDatabase::create().await;
    let producer = database.connect().await;
    let Parents { base_item, .. } = insert_parents(&producer).await;
    let insert = format!(
        "INSERT INTO items SELECT gen_random_uuid(), '{base_item}', '2024-01-01'::timestamptz + n * interval '500 us' \
         FROM generate_series(0, 3001) AS n"
    );
    producer.batch_execute(&insert).await.unwrap();
    let (_store, _term, hub) = lead(&settings(&database), Statements::default()).await;
    let topic = "item-creation/millisecond".parse().unwrap();
    let newest = hub.with_state(|statistics| statistics.snapshot(topic, usize::MAX)).unwrap();
    assert_eq!(newest.buckets.len(), 1_000);
    assert!(newest.buckets.iter().all(|bucket| bucket.count == 2));
    assert_eq!(newest.buckets[999].time.to_string(), "2024-01-01T00:00:01.500Z");
    assert_eq!(newest.buckets[0].time.to_string(), "2024-01-01T00:00:00.501Z");
}

/// The error is not that the rollback failed as well.
#[tokio::test]
async fn a_transaction_that_fails_reports_its_first_error() {
    let database = TestDatabase::create().await;
    let mut settings = settings(&database);
    settings.leader.lock_timeout = service_kit::settings::NonZeroDuration::from_millis(60_000);
    let (store, mut term, _) = lead(&settings, Statements::default()).await;
    let superuser = database.connect().await;
    superuser.batch_execute("BEGIN; LOCK TABLE rollup_cursor").await.unwrap();
    let end = async {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while superuser.query(end, &[]).await.unwrap().is_empty() {}
    };
    let (flushed, ()) = tokio::join!(term.flush(&store), end);
    let Err(StoreError::Postgres(error)) = flushed else { panic!("{flushed:?}") };
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
}
