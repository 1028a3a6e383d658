//! Drives terms step by step, and compares what they show and store after each step with the
//! events.

use std::time::Duration;

use postgres_kit::locks::LEAD;
use service_kit::settings::NonZeroDuration;
use stats_notifier::lead_watch::LeadHolder;
use stats_notifier::settings::{RetentionSettings, Settings};
use stats_notifier::store::StoreError;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::support::{DEADLINE, Fixture, Leader, coarser, run};

#[tokio::test]
async fn every_kind_of_statement_is_counted_once() {
    let fixture = Fixture::create().await;
    let Fixture { base_item, item, .. } = fixture;
    // The item exists before the first term, so the load counts it.
    let mut leader = fixture.lead().await;
    assert_eq!(leader.shown(), fixture.counted_from_events().await);

    let transfers =
        |count| fixture.insert_transfers("now() + n * interval '1 s'", &format!("1, {count}"));
    let statements = [
        fixture.insert_items("now()", "1, 50"),
        transfers(50),
        "UPDATE transfers SET \"timestamp\" = \"timestamp\" + interval '1 day'".to_owned(),
        "UPDATE transfers SET id = id".to_owned(),
        "DELETE FROM transfers WHERE \"timestamp\" > now() + interval '1 day 30 s'".to_owned(),
        format!("BEGIN; {}; ROLLBACK", transfers(9)),
        format!(
            "BEGIN; SAVEPOINT a; {}; ROLLBACK TO a; SAVEPOINT b; {}; COMMIT",
            transfers(3),
            transfers(4)
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
        fixture.execute(&statement).await;
        leader.tick().await;
        assert_eq!(leader.shown(), fixture.counted_from_events().await, "after {statement}");
        leader.flush().await;
        assert_eq!(fixture.rolled_up().await, coarser(&leader.shown()), "after {statement}");
        leader.purge(20).await;
    }
    leader.until_purged(&fixture).await;
}

#[tokio::test]
async fn a_transaction_held_open_across_ticks_and_flushes_is_counted_when_it_commits() {
    let fixture = Fixture::create().await;
    let slow = fixture.database.connect().await;
    let mut leader = fixture.lead().await;
    slow.batch_execute(&format!("BEGIN; {}", fixture.insert_item())).await.unwrap();
    for _ in 0..3 {
        fixture.execute(&fixture.insert_item()).await;
        leader.tick().await;
        leader.flush().await;
        leader.purge(1).await;
        assert_eq!(leader.shown(), fixture.counted_from_events().await);
    }
    slow.batch_execute("COMMIT").await.unwrap();
    assert_eq!(leader.tick().await, 1);
    assert_eq!(leader.shown(), fixture.counted_from_events().await);
    leader.flush().await;
    assert_eq!(fixture.rolled_up().await, coarser(&leader.shown()));
}

#[tokio::test]
async fn a_new_leader_shows_what_the_old_one_had_not_flushed() {
    let fixture = Fixture::create().await;
    let mut leader = fixture.lead().await;
    fixture.execute(&fixture.insert_items("now() + n * interval '7 days'", "1, 30")).await;
    leader.tick().await;
    drop(leader);
    let mut leader = fixture.lead_again().await;
    assert_eq!(leader.shown(), fixture.counted_from_events().await);
    leader.flush().await;
    assert_eq!(fixture.rolled_up().await, coarser(&leader.shown()));
}

/// A time limit would end each term before it could begin, if the log takes longer to read. A fold
/// would take longer still.
#[tokio::test]
async fn a_long_log_is_loaded_without_a_time_limit_and_is_not_folded_first() {
    let mut fixture = Fixture::create().await;
    let mut leader = fixture.lead().await;
    leader.flush().await;
    let before = fixture.rolled_up().await;
    drop(leader);
    let slow_to_read = "ALTER TABLE count_log ENABLE ROW LEVEL SECURITY;
        CREATE POLICY take_long ON count_log TO newcycle_notifier
            USING ((SELECT pg_sleep(1.5)) IS NOT NULL)";
    fixture.execute(slow_to_read).await;
    let minutes = "'2024-01-01'::timestamptz + n * interval '1 minute'";
    fixture.execute(&fixture.insert_items(minutes, "1, 20000")).await;
    fixture.settings.leader.statement_timeout = NonZeroDuration::from_millis(1_000);
    let mut leader = fixture.lead_again().await;
    assert_eq!(fixture.rolled_up().await, before, "the log must not be folded yet");
    let days = leader.window("item-creation/day").buckets;
    let events: i64 = days.iter().map(|day| day.count).sum();
    assert_eq!(events, 20_001, "each event must be shown once");
    // A tick has the time limit that this load would have missed; a flush has none either.
    fixture.execute(&fixture.insert_item()).await;
    assert!(matches!(leader.term.tick(&leader.store).await, Err(StoreError::Timeout(_))));
    leader.flush().await;
    assert_eq!(fixture.rolled_up().await, coarser(&fixture.counted_from_events().await));
}

#[tokio::test]
async fn a_deposed_leader_writes_nothing() {
    let fixture = Fixture::create().await;
    let mut old = fixture.lead().await;
    let mut new = Leader::begin(fixture.connect().await, &fixture.settings).await;
    fixture.execute(&fixture.insert_item()).await;
    old.tick().await;
    let before = (fixture.rolled_up().await, fixture.log_rows().await);
    let ended = old.upkeep.flush(&old.for_upkeep).await;
    assert!(matches!(ended, Err(StoreError::Postgres(_))), "a new term ends the session");
    // The leader may open the session after the new term has looked for it. It expires buckets
    // and then has some to delete.
    let Settings { database, leader, retention, .. } = &fixture.settings;
    let retention = RetentionSettings { second_days: 1, ..retention.clone() };
    old.for_upkeep = old.store.connect_for_upkeep(database, leader).await.unwrap();
    let Leader { upkeep, for_upkeep, .. } = &mut old;
    let written = [
        ("flush", upkeep.flush(for_upkeep).await.err()),
        ("purge", upkeep.purge(for_upkeep, 10).await.err()),
        ("expire", upkeep.expire(for_upkeep, &retention).await.err()),
        ("delete", upkeep.delete_expired(for_upkeep, 10).await.err()),
    ];
    for (write, refused) in written {
        assert!(matches!(refused, Some(StoreError::Deposed(_))), "{write}: {refused:?}");
    }
    assert_eq!((fixture.rolled_up().await, fixture.log_rows().await), before);
    new.tick().await;
    assert_eq!(new.shown(), fixture.counted_from_events().await);
}

/// The flush has locked the cursor row, and has folded rows that nobody has committed.
#[tokio::test]
async fn a_new_term_ends_a_flush_of_the_former_one() {
    let mut fixture = Fixture::create().await;
    // The new term must not have to wait for the lock.
    fixture.settings.leader.lock_timeout = NonZeroDuration::from_millis(60_000);
    let wait = "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(3600); RETURN NEW; END $$;
        CREATE TRIGGER wait BEFORE UPDATE OF snapshot ON rollup_cursor FOR EACH ROW EXECUTE FUNCTION wait_here()";
    let mut old = fixture.lead().await;
    let before = fixture.rolled_up().await;
    fixture.execute(wait).await;
    fixture.execute(&fixture.insert_item()).await;
    let next_term = async {
        let in_flush = "SELECT FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event = 'PgSleep'";
        while fixture.producer.query(in_flush, &[]).await.unwrap().is_empty() {}
        Leader::begin(fixture.connect().await, &fixture.settings).await
    };
    let (flushed, new) = tokio::join!(old.upkeep.flush(&old.for_upkeep), next_term);
    let Err(StoreError::Postgres(error)) = flushed else { panic!("{flushed:?}") };
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
    assert_eq!(fixture.rolled_up().await, before);
    assert_eq!(new.shown(), fixture.counted_from_events().await);
}

/// Live numbers need only the session of the lead.
#[tokio::test]
async fn a_leader_counts_while_its_second_session_cannot_be_opened() {
    let mut fixture = Fixture::create().await;
    fixture.settings.tick.listen = false;
    fixture.settings.leader.address_check_interval = NonZeroDuration::from_millis(3_600_000);
    let name = fixture.database.superuser().name;
    let limit = |most: i32| format!("ALTER DATABASE {name} CONNECTION LIMIT {most}");
    // The producer has one connection, and the session of the lead is the other.
    fixture.execute(&limit(2)).await;
    let running = run(fixture.settings.clone()).await;
    let term = async || -> i64 {
        fixture.producer.query_one("SELECT term FROM rollup_cursor", &[]).await.unwrap().get(0)
    };
    let first_term = term().await;
    let before = fixture.rolled_up().await;
    fixture.execute(&fixture.insert_items("now()", "1, 20")).await;
    let shown = async {
        while running.items() != 21 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, shown).await.expect("the items must be shown");
    assert_eq!(fixture.rolled_up().await, before, "there must be no second session yet");
    fixture.execute(&limit(-1)).await;
    let expected = coarser(&fixture.counted_from_events().await);
    let written = async { while fixture.rolled_up().await != expected {} };
    tokio::time::timeout(DEADLINE, written).await.expect("the items must be rolled up");
    assert_eq!(term().await, first_term, "it must be the same term");
}

#[tokio::test]
async fn what_holds_the_lead_is_known() {
    let mut fixture = Fixture::create().await;
    // Neither ends the sessions here.
    fixture.settings.leader.lock_timeout = NonZeroDuration::from_millis(120_000);
    fixture.settings.leader.session_timeout = NonZeroDuration::from_millis(120_000);
    let standby = fixture.connect().await;
    let holders = async || standby.lead_holders().await.unwrap();
    assert_eq!(holders().await, []);
    // Idle for a while, and then busy.
    let holder = fixture.connect().await;
    assert!(holder.try_lead().await.unwrap());
    let idle = async || match holders().await.as_slice() {
        [LeadHolder::Session { is_own_role: true, idle, role, .. }] => {
            assert_eq!(role, "newcycle_notifier");
            *idle
        }
        other => panic!("{other:?}"),
    };
    let until_idle = async { while idle().await < Duration::from_millis(100) {} };
    tokio::time::timeout(DEADLINE, until_idle).await.expect("it must become idle");
    fixture.execute("BEGIN; LOCK TABLE rollup_cursor").await;
    let until_busy = async { while !idle().await.is_zero() {} };
    tokio::select! {
        ended = holder.check_term(1) => panic!("it must wait for the lock: {ended:?}"),
        busy = tokio::time::timeout(DEADLINE, until_busy) => busy.expect("it must be busy"),
    }
    fixture.execute("ROLLBACK").await;
    drop(holder);

    // Another lock with the same numbers, which is one of 64 bits, is none.
    let alike = "SELECT pg_advisory_lock($1::bigint << 32 | $2)";
    let numbers: [&(dyn ToSql + Sync); 2] = [&i64::from(LEAD.class), &i64::from(LEAD.purpose)];
    fixture.producer.query_one(alike, &numbers).await.unwrap();
    let until_free = async { while !holders().await.is_empty() {} };
    tokio::time::timeout(DEADLINE, until_free).await.expect("the lead must become free");
    let share = "SELECT pg_advisory_xact_lock_shared($1, $2)";
    fixture.execute("BEGIN").await;
    fixture.producer.query_one(share, &[&LEAD.class, &LEAD.purpose]).await.unwrap();
    let of_session = holders().await;
    assert!(
        matches!(of_session.as_slice(), [LeadHolder::Session { is_own_role: false, .. }]),
        "{of_session:?}"
    );
    // Its name must be unique in the cluster.
    let name = format!("{}'s", fixture.database.superuser().name).replace('\'', "''");
    fixture.execute(&format!("PREPARE TRANSACTION '{name}'")).await;
    let of_transaction = holders().await;
    fixture.execute(&format!("ROLLBACK PREPARED '{name}'")).await;
    let [LeadHolder::Prepared { name: found, .. }] = of_transaction.as_slice() else {
        panic!("{of_transaction:?}")
    };
    assert_eq!(*found, format!("'{name}'"));
}

#[tokio::test]
async fn events_restored_into_another_database_are_counted_again() {
    let fixture = Fixture::create().await;
    drop(fixture.lead().await);
    for elsewhere in
        ["system_identifier = 1", "database_oid = 1", "snapshot = '4000000000:4000000000:'"]
    {
        // A restore brings counts of another moment.
        fixture.execute("DELETE FROM items WHERE created_at > '2001-01-01'").await;
        fixture.execute(&fixture.insert_item()).await;
        fixture.execute("UPDATE rollup SET count = 77; DELETE FROM count_log").await;
        fixture.execute(&format!("UPDATE rollup_cursor SET {elsewhere}")).await;
        let leader = fixture.lead_again().await;
        assert_eq!(leader.shown(), fixture.counted_from_events().await, "{elsewhere}");
        assert_eq!(fixture.rolled_up().await, coarser(&leader.shown()), "{elsewhere}");
    }
}

/// There are more milliseconds than a window holds.
#[tokio::test]
async fn milliseconds_are_loaded_from_the_newest_events() {
    let fixture = Fixture::create().await;
    let halves = "'2024-01-01'::timestamptz + n * interval '500 us'";
    fixture.execute(&fixture.insert_items(halves, "0, 3001")).await;
    let newest = fixture.lead().await.window("item-creation/millisecond").buckets;
    assert_eq!(newest.len(), 1_000);
    assert!(newest.iter().all(|bucket| bucket.count == 2));
    assert_eq!(newest[999].time.to_string(), "2024-01-01T00:00:01.500Z");
    assert_eq!(newest[0].time.to_string(), "2024-01-01T00:00:00.501Z");
}

/// The error is not that the rollback failed as well.
#[tokio::test]
async fn a_transaction_that_fails_reports_its_first_error() {
    let fixture = Fixture::create().await;
    let mut leader = fixture.lead().await;
    fixture.execute("BEGIN; LOCK TABLE rollup_cursor").await;
    let end = async {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while fixture.producer.query(end, &[]).await.unwrap().is_empty() {}
    };
    let (flushed, ()) = tokio::join!(leader.upkeep.flush(&leader.for_upkeep), end);
    let Err(StoreError::Postgres(error)) = flushed else { panic!("{flushed:?}") };
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
}
