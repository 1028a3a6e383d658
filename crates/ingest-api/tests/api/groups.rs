//! Rows of single requests that are committed in groups.
//!
//! A lock that another session holds keeps the only writer of the only thread busy. What is sent
//! meanwhile is the next group.

use std::num::NonZeroUsize;

use futures_util::future::join_all;
use ingest_api::settings::Settings;
use local_stack::link::LinkMode;
use serde_json::{Value, json};
use service_kit::settings::NonZeroDuration;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{Answer, Api, until, waiting};

fn one_writer(settings: &mut Settings) {
    settings.http.workers = NonZeroUsize::MIN;
    settings.writes.max_extra_writers = 0;
    // A wait for a lock ends after a quarter of it.
    settings.limits.query_timeout = NonZeroDuration::from_millis(60_000);
}

/// The value of a metric of the table of items.
async fn metric(api: &Api, name: &str) -> u64 {
    let name = format!("{name}{{table=\"public.items\"}} ");
    let metrics = api.metrics().await;
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0, |value| value.parse().unwrap())
}

async fn until_queued(api: &Api, rows: u64) {
    until("the rows do not wait", async || metric(api, "ingest_queued_rows").await == rows).await;
}

/// A session that keeps all others from writing items.
async fn lock(api: &Api) -> Client {
    let blocker = api.database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE items IN SHARE MODE").await.unwrap();
    blocker
}

/// Sends a row in the background.
fn post(api: &Api, body: &Value) -> JoinHandle<Answer> {
    let request = api.request("POST", "/items").header("content-type", "application/json");
    let request = request.body(body.to_string());
    tokio::spawn(Answer::to(request))
}

/// Sends a row, and waits until its insert waits for the lock.
async fn post_and_block(api: &Api, body: &Value) -> JoinHandle<Answer> {
    let sent = post(api, body);
    // Within its transaction, the blocker would always see the same sessions.
    let observer = api.database.connect().await;
    until("the writer does not wait", async || waiting(&observer).await == 1).await;
    sent
}

#[tokio::test]
async fn rows_that_arrive_while_the_writer_is_busy_are_one_group_and_a_lone_row_is_its_own() {
    let api = Api::start_with(one_writer).await;
    let (base_item, ..) = api.parents().await;
    let row = json!({ "base_item_id": base_item });
    let inserts = async || metric(&api, "ingest_insert_rows_count").await;
    let before = inserts().await;
    for _ in 0..3 {
        assert_eq!(api.post("/items", &row).await.status, 201);
    }
    assert_eq!(inserts().await, before + 3, "each lone row is written at once");

    let blocker = lock(&api).await;
    let mut sent = vec![post_and_block(&api, &row).await];
    sent.extend((0..20).map(|_| post(&api, &row)));
    until_queued(&api, 20).await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    let mut ids = Vec::new();
    for answer in join_all(sent).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
        ids.push(answer.body["id"].to_string());
    }
    assert_eq!(inserts().await, before + 3 + 2, "20 rows are one insert");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 21, "each caller gets its own row");
    assert_eq!(api.rows().await[2], 1 + 3 + 21);
}

#[tokio::test]
async fn each_caller_of_a_mixed_group_gets_its_own_answer() {
    let api = Api::start_with(one_writer).await;
    let (base_item, _, item) = api.parents().await;
    let stranger = Uuid::now_v7();
    let [new, twice] = [Uuid::now_v7(), Uuid::now_v7()];
    let row =
        |id: &dyn std::fmt::Display| json!({ "id": id.to_string(), "base_item_id": base_item });
    let conflict =
        json!({ "id": item, "base_item_id": base_item, "created_at": "2020-01-01T00:00:00Z" });
    let orphan = json!({ "base_item_id": stranger });
    let bodies = [row(&new), row(&item), conflict, orphan, row(&twice), row(&twice)];
    let blocker = lock(&api).await;
    let first = post_and_block(&api, &json!({ "base_item_id": base_item })).await;
    let inserts = metric(&api, "ingest_insert_rows_count").await;
    let sent: Vec<_> = bodies.iter().map(|body| post(&api, body)).collect();
    until_queued(&api, 6).await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(first.await.unwrap().status, 201);
    let mut answers = Vec::new();
    for answer in join_all(sent).await {
        answers.push(answer.unwrap());
    }
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses[..4], [201, 200, 409, 422]);
    let mut same = statuses[4..].to_vec();
    same.sort_unstable();
    assert_eq!(same, [200, 201], "one of two equal rows is new");
    let id = |answer: &Answer| answer.body["id"].as_str().unwrap().to_owned();
    assert_eq!(id(&answers[0]), new.to_string());
    assert_eq!(id(&answers[1]), item);
    assert_eq!([id(&answers[4]), id(&answers[5])], [twice.to_string(), twice.to_string()]);
    assert_eq!(answers[3].body["field"], "base_item_id");
    assert_eq!(metric(&api, "ingest_insert_rows_count").await, inserts + 2, "it was one group");
}

/// A session that keeps rows of one base item from being written, and others not.
async fn lock_base_item(api: &Api, base_item: &str) -> Client {
    let blocker = api.database.connect().await;
    let lock = format!("BEGIN; SELECT FROM base_items WHERE id = '{base_item}' FOR UPDATE");
    blocker.batch_execute(&lock).await.unwrap();
    blocker
}

#[tokio::test]
async fn rows_that_wait_for_a_lock_do_not_hurt_their_group() {
    let api = Api::start_with(|settings| {
        one_writer(settings);
        settings.limits.query_timeout = NonZeroDuration::from_millis(8_000);
    })
    .await;
    let (base_item, ..) = api.parents().await;
    let (locked, ..) = api.parents().await;
    let good = json!({ "base_item_id": base_item });
    // If these were sent first, one after another, the time of the others would be up.
    let contended: Vec<_> =
        (0..5).map(|_| json!({ "id": Uuid::now_v7(), "base_item_id": locked })).collect();
    let owner = lock_base_item(&api, &locked).await;

    let blocker = lock(&api).await;
    let first = post_and_block(&api, &good).await;
    let mut sent: Vec<_> = contended.iter().map(|row| post(&api, row)).collect();
    until_queued(&api, 5).await;
    sent.extend((0..20).map(|_| post(&api, &good)));
    until_queued(&api, 25).await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(first.await.unwrap().status, 201);
    let mut statuses = Vec::new();
    for answer in join_all(sent).await {
        statuses.push(answer.unwrap().status);
    }
    assert_eq!(statuses, [vec![503; 5], vec![201; 20]].concat());

    owner.batch_execute("COMMIT").await.unwrap();
    assert_eq!(api.post("/items", &contended[0]).await.status, 201);
}

#[tokio::test]
async fn rows_behind_a_group_that_is_stuck_are_written_by_another_writer() {
    let api = Api::start_with(|settings| {
        one_writer(settings);
        settings.writes.max_extra_writers = 1;
    })
    .await;
    let (base_item, ..) = api.parents().await;
    let (locked, ..) = api.parents().await;
    let owner = lock_base_item(&api, &locked).await;
    let stuck = post_and_block(&api, &json!({ "base_item_id": locked })).await;

    assert_eq!(api.post("/items", &json!({ "base_item_id": base_item })).await.status, 201);
    assert!(!stuck.is_finished());
    owner.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(stuck.await.unwrap().status, 201);
}

#[tokio::test]
async fn a_row_whose_time_is_up_in_the_queue_is_503_and_not_stored() {
    let api = Api::start_with(|settings| {
        one_writer(settings);
        settings.limits.query_timeout = NonZeroDuration::from_millis(1_000);
    })
    .await;
    let (base_item, ..) = api.parents().await;
    let link = api.database.connect().await;
    // Unlike a lock, nothing but the caller's time ends this.
    let sleep = "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN PERFORM pg_sleep(600); RETURN NULL; END';
                 CREATE TRIGGER sleep BEFORE INSERT ON items
                 FOR EACH STATEMENT EXECUTE FUNCTION sleep()";
    link.batch_execute(sleep).await.unwrap();
    let first = post(&api, &json!({ "base_item_id": base_item }));
    until("the row is not being written", async || {
        let find = "SELECT FROM pg_stat_activity
                    WHERE wait_event = 'PgSleep' AND datname = current_database()";
        !link.query(find, &[]).await.unwrap().is_empty()
    })
    .await;
    let queued = Uuid::now_v7();
    let answer = api.post("/items", &json!({ "id": queued, "base_item_id": base_item })).await;
    assert_eq!((first.await.unwrap().status, answer.status), (503, 503));
    link.batch_execute("DROP FUNCTION sleep CASCADE").await.unwrap();
    assert_eq!(api.post("/items", &json!({ "base_item_id": base_item })).await.status, 201);
    assert_eq!(api.get(&format!("/items/{queued}")).await.status, 404);
}

/// A plan that reads the whole table of the parents would be slow once the table has grown.
#[tokio::test]
async fn parents_are_found_by_their_index() {
    let api = Api::start().await;
    let (base_item, ..) = api.parents().await;
    let client = api.database.connect().await;
    client.batch_execute("ANALYZE base_items").await.unwrap();
    let scans = async || {
        let find =
            "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'base_items'";
        let scans = client.query_one(find, &[]).await.unwrap();
        (scans.get::<_, i64>(0), scans.get::<_, i64>(1))
    };
    let (before, by_index) = scans().await;
    const UPLOADS: i64 = 8;
    let mut lines = format!("{{\"base_item_id\":\"{base_item}\"}}\n").repeat(10);
    // Because its parent is missing, all lines are joined with their parents.
    lines += &json!({ "base_item_id": Uuid::now_v7() }).to_string();
    for _ in 0..UPLOADS {
        assert_eq!(api.upload("/items", &lines).await.counts(), [10, 0, 1]);
    }
    // The foreign key looks for the parent of each row, up to the missing one. Then the join looks
    // for both parents once for all rows, and the foreign key for the parent of each good row.
    let expected = by_index + UPLOADS * (11 + 2 + 10);
    until("the scans must be reported", async || scans().await.1 >= expected).await;
    assert_eq!(scans().await.0, before);
}

/// A trigger stands for anything that makes Postgres refuse a statement.
#[tokio::test]
async fn a_row_that_postgres_refuses_does_not_hurt_its_group() {
    let api = Api::start_with(one_writer).await;
    let (base_item, ..) = api.parents().await;
    let bad = Uuid::now_v7();
    let refuse = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN IF NEW.id = '{bad}' THEN RAISE 'no'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    let blocker = api.database.connect().await;
    blocker.batch_execute(&refuse).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE items IN SHARE MODE").await.unwrap();
    let good = json!({ "base_item_id": base_item });
    let first = post_and_block(&api, &good).await;
    let sent = [
        post(&api, &good),
        post(&api, &json!({ "id": bad, "base_item_id": base_item })),
        post(&api, &good),
    ];
    until_queued(&api, 3).await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(first.await.unwrap().status, 201);
    let mut statuses = Vec::new();
    for answer in join_all(sent).await {
        statuses.push(answer.unwrap().status);
    }
    assert_eq!(statuses, [201, 500, 201]);
    assert_eq!(api.rows().await[2], 1 + 3);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_disturb_its_group() {
    let api = Api::start_with(one_writer).await;
    let (base_item, ..) = api.parents().await;
    let [taken, queued] = [Uuid::now_v7(), Uuid::now_v7()];
    let row = |id: Uuid| json!({ "id": id, "base_item_id": base_item });
    let blocker = lock(&api).await;
    let first = post_and_block(&api, &row(taken)).await;
    let second = post(&api, &row(queued));
    let third = post(&api, &json!({ "base_item_id": base_item }));
    until_queued(&api, 2).await;
    first.abort();
    second.abort();
    assert!(first.await.is_err() && second.await.is_err());
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(third.await.unwrap().status, 201);
    // The group of the first caller was not cancelled. The second row may be stored or not.
    assert_eq!(api.get(&format!("/items/{taken}")).await.status, 200);
    assert!([200, 404].contains(&api.get(&format!("/items/{queued}")).await.status));
}

#[tokio::test]
async fn a_full_queue_is_503_at_once() {
    let api = Api::start_with(|settings| {
        one_writer(settings);
        settings.writes.max_queued_rows = NonZeroUsize::new(2).unwrap();
    })
    .await;
    let (base_item, ..) = api.parents().await;
    let row = json!({ "base_item_id": base_item });
    let blocker = lock(&api).await;
    let mut sent = vec![post_and_block(&api, &row).await];
    sent.extend([post(&api, &row), post(&api, &row)]);
    until_queued(&api, 2).await;
    // While the lock is held: this caller does not wait.
    let refused = api.post("/items", &row).await;
    assert_eq!((refused.status, &refused.body["type"]), (503, &json!("/problems/unavailable")));
    assert_eq!(refused.body["detail"], "too many rows wait to be written");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(metric(&api, "ingest_queue_full_total").await, 1);
    blocker.batch_execute("ROLLBACK").await.unwrap();
    for answer in join_all(sent).await {
        assert_eq!(answer.unwrap().status, 201);
    }
    assert_eq!(api.rows().await[2], 1 + 3);
}

/// The lock keeps the row from being stored before the session is ended.
#[tokio::test]
async fn a_group_whose_session_is_ended_is_sent_again() {
    let api = Api::start_with(one_writer).await;
    let (base_item, ..) = api.parents().await;
    let row = json!({ "base_item_id": base_item });
    let blocker = lock(&api).await;
    let first = post_and_block(&api, &row).await;
    let ended: i64 = blocker
        .query_one(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(ended, 1);
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(api.rows().await[2], 1 + 1);
}

/// The link holds back the answer to a commit, and is then reset.
#[tokio::test]
async fn a_row_whose_commit_was_not_answered_is_stored_once_and_answered_truthfully() {
    let mut link = None;
    let api = Api::start_through(&mut link, one_writer).await;
    let link = link.unwrap();
    let (base_item, ..) = api.parents().await;
    let given = Uuid::now_v7();
    let bodies = [
        // The id is the service's, so the row that is found must be this request's own.
        (json!({ "base_item_id": base_item }), 201),
        // Stored by this request, or by an earlier one.
        (json!({ "id": given, "base_item_id": base_item }), 200),
    ];
    for (resets, (body, status)) in (1..).zip(bodies) {
        // The row is inserted, and waits for its parent: all that remains is the commit.
        let blocker = api.database.connect().await;
        blocker.batch_execute("BEGIN; SELECT FROM base_items FOR UPDATE").await.unwrap();
        let stored = api.rows().await[2];
        let sent = post_and_block(&api, &body).await;
        link.set(LinkMode::Stalled);
        blocker.batch_execute("ROLLBACK").await.unwrap();
        until("the row is not committed", async || api.rows().await[2] == stored + 1).await;
        link.set(LinkMode::Reset(resets));
        let answer = sent.await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.body);
        let id = Uuid::parse_str(answer.body["id"].as_str().unwrap()).unwrap();
        let found = "SELECT FROM items WHERE id = $1";
        assert_eq!(blocker.query(found, &[&id]).await.unwrap().len(), 1);
        assert_eq!(api.rows().await[2], stored + 1);
    }
}
