//! A transaction that stays open for long does not make ticks and flushes slower.

use stats_notifier::store::{PLANNING, Statements};
use tokio_postgres::Client;

use crate::support::{Fixture, coarser, plan};

/// More blocks than a tick or a flush reads if there is nothing new. A transaction in progress in
/// another test costs a few. [`MANY_ROWS`] fills many times as many.
const FEW_BLOCKS: u64 = 100;

/// Writes the log rows of one transaction.
const MANY_ROWS: &str = "INSERT INTO count_log (time, delta, metric) \
     SELECT now(), 1, 'transfers' FROM generate_series(1, 30000)";

/// The number of blocks that a statement reads for a snapshot, cached or not.
async fn blocks_read(client: &Client, statement: &str, snapshot: &str) -> u64 {
    // As a leader's session does: without the value.
    client.batch_execute(&format!("PREPARE planned AS {statement}")).await.unwrap();
    let plan = plan(client, &format!("EXECUTE planned ('{snapshot}')")).await;
    client.batch_execute("DEALLOCATE planned").await.unwrap();
    let blocks = |name: &str| plan[name].as_u64().unwrap();
    blocks("Shared Hit Blocks") + blocks("Shared Read Blocks")
}

async fn snapshot(client: &Client) -> String {
    client.query_one("SELECT pg_current_snapshot()::text", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn ticks_and_flushes_read_neither_counted_rows_nor_rows_that_are_not_committed() {
    let fixture = Fixture::create().await;
    let slow = fixture.database.connect().await;
    let quick = &fixture.producer;
    let mut leader = fixture.lead().await;
    // A transaction that has written many rows and is still open, so nothing of it can be counted.
    slow.batch_execute(&format!("BEGIN; {MANY_ROWS}")).await.unwrap();
    // At first it is the newest transaction; then a later one commits before it.
    let newest = snapshot(quick).await;
    fixture.execute(MANY_ROWS).await;
    let overtaken = snapshot(quick).await;
    leader.tick().await;
    leader.flush().await;
    leader.purge(1_000).await;
    assert!(
        fixture.log_rows().await >= 30_000,
        "rows of later transactions than the open one must be kept"
    );

    let planned: Vec<&str> = PLANNING.split("-c ").filter(|setting| !setting.is_empty()).collect();
    fixture.execute(&format!("SET {}", planned.join("; SET "))).await;
    let Statements { tick, fold, .. } = Statements::default();
    for (name, statement) in [("tick", &tick), ("flush", &fold)] {
        let read = blocks_read(quick, statement, &overtaken).await;
        assert!(read < FEW_BLOCKS, "a {name} with nothing new read {read} blocks");
        // Reads what was committed since, and nothing of the open transaction.
        let read_new = blocks_read(quick, statement, &newest).await;
        assert!(
            read_new > 2 * FEW_BLOCKS,
            "a {name} with much that is new read only {read_new} blocks"
        );
    }
    fixture.execute(&fixture.insert_item()).await;
    let read = blocks_read(quick, &tick, &overtaken).await;
    assert!(read < FEW_BLOCKS, "a tick with one new row read {read} blocks");
    assert_eq!(leader.tick().await, 1);
}

#[tokio::test]
async fn a_long_transaction_holds_up_no_other_and_counts_when_it_commits() {
    let fixture = Fixture::create().await;
    let insert = fixture.insert_item();
    let mut leader = fixture.lead().await;
    let reader = fixture.database.connect().await;
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM count_log")
        .await
        .unwrap();
    for (end, counted) in [("COMMIT", 2), ("ROLLBACK", 0)] {
        let long = fixture.database.connect().await;
        long.batch_execute(&format!("BEGIN; {insert}; {insert}")).await.unwrap();
        for _ in 0..3 {
            fixture.execute(&insert).await;
            assert_eq!(leader.tick().await, 1);
            assert_eq!(leader.shown(), fixture.counted_from_events().await);
            leader.flush().await;
            leader.purge(1).await;
        }
        assert!(
            fixture.log_rows().await >= 3,
            "rows of later transactions than the open one must be kept"
        );
        long.batch_execute(end).await.unwrap();
        assert_eq!(leader.tick().await, counted);
        assert_eq!(leader.shown(), fixture.counted_from_events().await, "after {end}");
        leader.flush().await;
        assert_eq!(fixture.rolled_up().await, coarser(&leader.shown()), "after {end}");
    }
    // The reader is still open.
    leader.until_purged(&fixture).await;
}
