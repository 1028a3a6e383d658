//! A transaction that stays open for long does not make ticks and flushes slower.

use local_stack::test_database::TestDatabase;
use stats_notifier::store::{PLANNING, Statements};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{
    DEADLINE, Parents, coarser, counted_from_events, insert_parents, lead, rolled_up, settings,
    shown,
};

/// More blocks than a tick or a flush reads if there is nothing new. A transaction in progress in
/// another test costs a few. [`MANY_ROWS`] fills many times as many.
const FEW_BLOCKS: u64 = 100;

/// Writes the log rows of one transaction.
const MANY_ROWS: &str = "INSERT INTO count_log (metric, bucket, delta) \
     SELECT 'transfers', now(), 1 FROM generate_series(1, 30000)";

/// The number of blocks that a statement reads for a snapshot, cached or not.
async fn blocks_read(client: &Client, statement: &str, snapshot: &str) -> u64 {
    let statement = statement.replace("$1", &format!("'{snapshot}'"));
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}");
    let explained = client.simple_query(&format!("BEGIN; {explain}; ROLLBACK")).await.unwrap();
    let row = explained.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: serde_json::Value = serde_json::from_str(row.unwrap()).unwrap();
    let blocks = |name: &str| plan[0]["Plan"][name].as_u64().unwrap();
    blocks("Shared Hit Blocks") + blocks("Shared Read Blocks")
}

async fn snapshot(client: &Client) -> String {
    client.query_one("SELECT pg_current_snapshot()::text", &[]).await.unwrap().get(0)
}

async fn log_rows(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM count_log", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn ticks_and_flushes_read_neither_counted_rows_nor_rows_that_are_not_committed() {
    let database = TestDatabase::create().await;
    let (slow, quick) = (database.connect().await, database.connect().await);
    let Parents { base_item, .. } = insert_parents(&quick).await;
    let (store, mut term, _) = lead(&settings(&database), Statements::default()).await;
    // A transaction that has written many rows and is still open, so nothing of it can be counted.
    slow.batch_execute(&format!("BEGIN; {MANY_ROWS}")).await.unwrap();
    // At first it is the newest transaction; then a later one commits before it.
    let newest = snapshot(&quick).await;
    quick.batch_execute(MANY_ROWS).await.unwrap();
    let overtaken = snapshot(&quick).await;
    term.tick(&store).await.unwrap();
    term.flush(&store).await.unwrap();
    while term.purge(&store, 1_000).await.unwrap() {}
    assert!(
        log_rows(&quick).await >= 30_000,
        "rows of later transactions than the open one must be kept"
    );

    let planned: Vec<&str> = PLANNING.split("-c ").filter(|setting| !setting.is_empty()).collect();
    quick.batch_execute(&format!("SET {}", planned.join("; SET "))).await.unwrap();
    let Statements { tick, fold, .. } = Statements::default();
    for (name, statement) in [("tick", &tick), ("flush", &fold)] {
        let read = blocks_read(&quick, statement, &overtaken).await;
        assert!(read < FEW_BLOCKS, "a {name} with nothing new read {read} blocks");
        // Reads what was committed since, and nothing of the open transaction.
        let read_new = blocks_read(&quick, statement, &newest).await;
        assert!(
            read_new > 2 * FEW_BLOCKS,
            "a {name} with much that is new read only {read_new} blocks"
        );
    }
    let item = format!("INSERT INTO items VALUES (gen_random_uuid(), '{base_item}', now())");
    quick.batch_execute(&item).await.unwrap();
    let read = blocks_read(&quick, &tick, &overtaken).await;
    assert!(read < FEW_BLOCKS, "a tick with one new row read {read} blocks");
    assert_eq!(term.tick(&store).await.unwrap(), 1);
}

#[tokio::test]
async fn a_long_transaction_holds_up_no_other_and_counts_when_it_commits() {
    let database = TestDatabase::create().await;
    let (first, second, reader) =
        (database.connect().await, database.connect().await, database.connect().await);
    let quick = database.connect().await;
    let Parents { base_item, .. } = insert_parents(&quick).await;
    let (store, mut term, hub) = lead(&settings(&database), Statements::default()).await;
    let insert = format!("INSERT INTO items VALUES (gen_random_uuid(), '{base_item}', now())");
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM count_log")
        .await
        .unwrap();
    for (long, end) in [(&first, "COMMIT"), (&second, "ROLLBACK")] {
        long.batch_execute(&format!("BEGIN; {insert}; {insert}")).await.unwrap();
        for _ in 0..3 {
            quick.batch_execute(&insert).await.unwrap();
            assert_eq!(term.tick(&store).await.unwrap(), 1);
            assert_eq!(shown(&hub), counted_from_events(&quick).await);
            term.flush(&store).await.unwrap();
            while term.purge(&store, 1).await.unwrap() {}
        }
        assert!(
            log_rows(&quick).await >= 3,
            "rows of later transactions than the open one must be kept"
        );
        long.batch_execute(end).await.unwrap();
        assert_eq!(term.tick(&store).await.unwrap(), if end == "COMMIT" { 2 } else { 0 });
        assert_eq!(shown(&hub), counted_from_events(&quick).await, "after {end}");
        term.flush(&store).await.unwrap();
        assert_eq!(rolled_up(&quick).await, coarser(&shown(&hub)), "after {end}");
    }
    // The reader is still open. A transaction of another test may keep the last rows for a while.
    let purge = async {
        while log_rows(&quick).await > 0 {
            term.flush(&store).await.unwrap();
            term.tick(&store).await.unwrap();
            term.purge(&store, 20).await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, purge).await.expect("the purge must catch up");
}
