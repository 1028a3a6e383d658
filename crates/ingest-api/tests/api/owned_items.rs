//! The items that a user owns now: which they are, what a page of them costs, and that slow reads
//! do not keep writes waiting.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use service_kit::settings::NonZeroDuration;
use tokio_postgres::SimpleQueryMessage;
use uuid::Uuid;

use crate::support::{Api, without_shares};

/// The statements of the service, which does not export them.
#[path = "../../src/store/sql.rs"]
#[expect(dead_code, reason = "one of them is tried here")]
mod sql;

/// Far longer than a request takes, so that a busy machine does not change an answer.
const LONG: NonZeroDuration = NonZeroDuration::from_millis(60_000);

/// More clients than either pool has connections.
const CLIENTS: usize = 24;

/// Gives the first user `items` items, in several transfers each, and then all of them to the
/// second user, except those whose number is a multiple of `kept`. Returns the users.
pub(crate) async fn create_history(api: &Api, items: u32, kept: u32) -> (String, String) {
    let (base_item, first, _) = api.parents().await;
    let second = api.post("/users", &json!({})).await.body["id"].as_str().unwrap().to_owned();
    let insert = format!(
        "CREATE TEMPORARY TABLE numbered AS
             SELECT number, md5(number::text)::uuid AS id FROM generate_series(1, {items}) AS number;
         INSERT INTO items (id, base_item_id, created_at)
             SELECT id, '{base_item}', '2024-02-29Z' FROM numbered;
         INSERT INTO transfers (id, timestamp, owner_id, item_id)
             SELECT gen_random_uuid(), '2024-03-01Z'::timestamptz + day * interval '1 day',
                    '{first}', id
             FROM numbered, generate_series(0, 1) AS day;
         INSERT INTO transfers (id, timestamp, owner_id, item_id)
             SELECT gen_random_uuid(), '2024-03-03Z', '{second}', id
             FROM numbered WHERE number % {kept} <> 0;
         INSERT INTO transfers (id, timestamp, owner_id, item_id)
             SELECT gen_random_uuid(), '2024-02-29Z', '{second}', id FROM numbered;
         ANALYZE items, transfers"
    );
    api.database.connect().await.batch_execute(&insert).await.unwrap();
    (first, second)
}

/// The ids on each page of the items of a user.
async fn pages(api: &Api, user: &str, limit: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let answer = api.get(&format!("/users/{user}/items?{limit}{after}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let rows = answer.body["data"].as_array().unwrap().iter();
        pages.push(rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect());
        let Some(next) = answer.body["next"].as_str() else { return pages };
        after = format!("&after={next}");
    }
}

async fn owned(api: &Api, user: &str) -> Vec<String> {
    let query = format!(
        "SELECT item_id::text FROM (
             SELECT DISTINCT ON (item_id) item_id, owner_id FROM transfers
             ORDER BY item_id, timestamp DESC, id DESC
         ) AS latest WHERE owner_id = '{user}' ORDER BY item_id"
    );
    let rows = api.database.connect().await.query(&query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_pages_of_a_users_items_have_each_item_that_the_user_owns_once() {
    let api = Api::start().await;
    let (first, second) = create_history(&api, 60, 3).await;
    for user in [&first, &second] {
        let expected = owned(&api, user).await;
        for limit in ["limit=1", "limit=7", "limit=20", "limit=1000"] {
            let pages = pages(&api, user, limit).await;
            assert_eq!(pages.concat(), expected, "{limit}");
            // No page was cut short here, so all are full, except for the last one.
            assert!(pages.iter().rev().skip(1).all(|page| page.len() == pages[0].len()));
        }
    }
    let unknown = api.get(&format!("/users/{}/items", Uuid::now_v7())).await;
    assert_eq!(unknown.status, 404);
    let last = api.get(&format!("/users/{first}/items?after={}", Uuid::max())).await;
    assert_eq!(last.body, json!({ "data": [], "next": null }));
}

#[tokio::test]
async fn a_page_of_a_users_items_examines_a_limited_part_of_the_users_history() {
    let api = Api::start_with(|settings| {
        settings.limits.max_page_rows = 10.try_into().unwrap();
        settings.limits.default_page_rows = 10.try_into().unwrap();
    })
    .await;
    let (first, second) = create_history(&api, 36, 1_000).await;
    let lengths = async |user| -> Vec<usize> {
        pages(&api, user, "limit=10").await.iter().map(Vec::len).collect()
    };
    assert_eq!(lengths(&first).await, [0, 0, 0, 0]);
    assert_eq!(lengths(&second).await, [10, 10, 10, 6]);
    let (first, _) = create_history_of_few(&api).await;
    assert_eq!(pages(&api, &first, "limit=2").await.concat(), owned(&api, &first).await);
}

/// A user who keeps every twelfth of 50 items.
async fn create_history_of_few(api: &Api) -> (String, String) {
    api.database
        .connect()
        .await
        .batch_execute("DELETE FROM transfers; DELETE FROM items")
        .await
        .unwrap();
    create_history(api, 50, 12).await
}

/// A lock that another session holds stands for reads that are slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_hang_do_not_keep_writes_waiting() {
    let api = Api::start_with(|settings| {
        without_shares(settings);
        settings.limits.query_timeout = LONG;
        settings.read_pool.wait_timeout = LONG.get();
        settings.read_pool.statement_timeout = LONG;
    })
    .await;
    let (_, user, _) = api.parents().await;
    let blocker = api.database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE transfers").await.unwrap();
    let path = format!("/users/{user}/items");
    let reads = futures_util::future::join_all((0..CLIENTS).map(|_| api.get(&path)));
    let writes = async {
        let observer = api.database.connect().await;
        let waiting = "SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let start = Instant::now();
        while observer.query(waiting, &[]).await.unwrap().len() < 8 {
            assert!(start.elapsed() < LONG.get(), "all connections for reads must be in use");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..5 {
            assert_eq!(api.post("/users", &json!({})).await.status, 201);
        }
        assert_eq!(api.internal("/readyz").await.status, 200);
        let metrics = api.metrics().await;
        let in_use = "ingest_pool_connections{pool=\"read\",state=\"in_use\"} 8";
        assert!(metrics.contains(in_use), "{metrics}");
        blocker.batch_execute("ROLLBACK").await.unwrap();
    };
    let (reads, ()) = tokio::join!(reads, writes);
    assert!(reads.iter().all(|answer| answer.status == 200));
}

/// The buffers that Postgres reads for the first 10 items of a user, by its own choice of a plan
/// and by one that it makes without the values of the parameters.
async fn buffers_of_a_page(api: &Api, user: &str) -> [u64; 2] {
    const LIMIT: u64 = 10;
    const MAX_EXAMINED: u64 = 1_000;
    let database = api.database.connect().await;
    let prepare = format!("PREPARE items_of_user AS {}", sql::ITEMS_OF_USER);
    database.batch_execute(&prepare).await.unwrap();
    let explain = format!(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
         EXECUTE items_of_user ('{user}', '{}', {LIMIT}, {MAX_EXAMINED})",
        Uuid::nil()
    );
    let mut buffers = [0; 2];
    for (buffers, mode) in buffers.iter_mut().zip(["force_custom_plan", "force_generic_plan"]) {
        database.batch_execute(&format!("SET plan_cache_mode = {mode}")).await.unwrap();
        let messages = database.simple_query(&explain).await.unwrap();
        let text = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let plans: Value = serde_json::from_str(text.unwrap()).unwrap();
        let plan = &plans[0]["Plan"];
        assert_eq!(plan["Actual Rows"].as_f64(), Some(10.0), "{plan:#}");
        let count = |name: &str| plan[name].as_u64().unwrap();
        *buffers = count("Shared Hit Blocks") + count("Shared Read Blocks");
    }
    buffers
}

/// One user passes on every second item to another user, who keeps those.
///
/// With ten times the items, an index may have one more level. Reading all items of the user would
/// need ten times the buffers.
#[tokio::test]
async fn a_page_of_a_users_items_reads_about_as_much_however_many_items_the_user_has() {
    let mut buffers = Vec::new();
    for items in [1_000, 10_000] {
        let api = Api::start().await;
        let (first, second) = create_history(&api, items, 2).await;
        for user in [&first, &second] {
            buffers.push(buffers_of_a_page(&api, user).await);
        }
    }
    let (few, many) = buffers.split_at(2);
    for (few, many) in few.as_flattened().iter().zip(many.as_flattened()) {
        assert!(*many < 3 * few, "{many} buffers with ten times the items, {few} without");
    }
}
