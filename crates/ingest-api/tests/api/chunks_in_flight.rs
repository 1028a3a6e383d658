//! Uploads of which several chunks are being committed at the same time.
//!
//! Locks in Postgres hold the chunks, so that a test sees what the service does meanwhile.

use std::num::NonZeroUsize;

use ingest_api::settings::Settings;
use local_stack::test_database::TEST_KEY;
use serde_json::{Value, json};
use service_kit::settings::{NonZeroDuration, ProgramSettings as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{Answer, Api, NDJSON, until, waiting};

/// The lines of a chunk.
const LINES: usize = 10;
/// The memory that a user takes, in addition to the line.
const ROW_BYTES: usize = 28 + 8 + 16;
const LINE: &str = "{}\n";

fn two_small_chunks(settings: &mut Settings) {
    // So that no chunk gives up its wait for a lock, and begins another, while a test looks.
    let timeout = NonZeroDuration::from_millis(60_000);
    (settings.limits.query_timeout, settings.bulk.chunk_timeout) = (timeout, timeout);
    settings.bulk.max_chunk_lines = NonZeroUsize::new(LINES).unwrap();
    settings.bulk.max_chunks_in_flight = NonZeroUsize::new(2).unwrap();
}

/// A session that keeps all others from writing users.
async fn lock(api: &Api) -> Client {
    let blocker = api.database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE users IN SHARE MODE").await.unwrap();
    blocker
}

/// Base items called "refuse" are an error, and those called "wait" wait until the session that is
/// returned releases them.
async fn refuse_or_hold(api: &Api) -> Client {
    let superuser = api.database.connect().await;
    let trigger = "CREATE FUNCTION refuse_or_wait() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.description = 'refuse' THEN RAISE 'refused'; END IF;
             IF NEW.description = 'wait' THEN PERFORM pg_advisory_xact_lock(1); END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse_or_wait BEFORE INSERT ON base_items
         FOR EACH ROW EXECUTE FUNCTION refuse_or_wait();
         SELECT pg_advisory_lock(1)";
    superuser.batch_execute(trigger).await.unwrap();
    superuser
}

async fn release(holder: &Client) {
    holder.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
}

/// Begins an upload of users that never ends, and sends these lines of it.
async fn begin(api: &Api, lines: &str) -> TcpStream {
    let mut connection = TcpStream::connect(api.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /users HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEST_KEY}\r\ncontent-type: {NDJSON}\r\n\
         content-length: 999999999\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(lines.as_bytes()).await.unwrap();
    connection
}

async fn gauge(api: &Api, name: &str) -> usize {
    let metrics = api.metrics().await;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}: {metrics}")).parse().unwrap()
}

async fn until_ended(api: &Api) {
    until("the upload does not end", async || gauge(api, "ingest_uploads").await == 0).await;
    assert_eq!(gauge(api, "ingest_upload_waiting_bytes").await, 0);
}

/// Sends an upload in the background.
fn upload(api: &Api, path: &str, lines: String) -> tokio::task::JoinHandle<Answer> {
    let request = api.request("POST", path).header("content-type", NDJSON).body(lines);
    tokio::spawn(Answer::to(request))
}

fn base_item(id: Uuid, description: &str) -> String {
    format!("{{\"id\":\"{id}\",\"description\":\"{description}\"}}\n")
}

#[tokio::test]
async fn a_sender_waits_while_two_chunks_are_committed_and_the_next_one_is_full() {
    let api = Api::start_with(two_small_chunks).await;
    let blocker = lock(&api).await;
    let observer = api.database.connect().await;
    let mut connection = begin(&api, "").await;
    // What the client has not sent is lost when it closes.
    connection.set_zero_linger().unwrap();
    // Long lines, so that the buffers of the sockets hold few of them.
    let line = format!("{:4000}", "{}");
    let lines = format!("{line}\n").repeat(100);
    let mut sent = tokio::spawn(async move {
        // 64 MB, which is more than the buffers hold.
        for _ in 0..160 {
            if connection.write_all(lines.as_bytes()).await.is_err() {
                return None;
            }
        }
        Some(connection)
    });
    until("two chunks must be committed at once", async || waiting(&observer).await == 2).await;
    let bytes = async || gauge(&api, "ingest_upload_waiting_bytes").await;
    let three_chunks = 3 * LINES * (line.len() + ROW_BYTES);
    until("the next one must be read", async || bytes().await == three_chunks).await;
    // Without a bound, the service would take more and more.
    for _ in 0..50 {
        assert_eq!(bytes().await, three_chunks);
        assert_eq!(waiting(&observer).await, 2);
    }
    assert!(!sent.is_finished(), "the service must stop reading");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    until("the upload must go on", async || api.rows().await[1] > 30).await;
    sent.abort();
    let _aborted = (&mut sent).await;
    until_ended(&api).await;
    assert_eq!(api.rows().await[1] % 10, 0, "only whole chunks are stored");
}

#[tokio::test]
async fn a_client_that_hangs_up_half_way_leaves_only_whole_chunks() {
    let api = Api::start_with(two_small_chunks).await;
    let blocker = lock(&api).await;
    let observer = api.database.connect().await;
    for lines in [25, 35, 95] {
        let connection = begin(&api, &LINE.repeat(lines)).await;
        until("two chunks must be committed at once", async || waiting(&observer).await == 2).await;
        // With a reset, as when the client dies.
        connection.set_zero_linger().unwrap();
        drop(connection);
        blocker.batch_execute("ROLLBACK; BEGIN").await.unwrap();
        until_ended(&api).await;
        until("no session works on", async || waiting(&observer).await == 0).await;
        assert_eq!(api.rows().await[1] % 10, 0, "only whole chunks are stored");
        blocker.batch_execute("LOCK TABLE users IN SHARE MODE").await.unwrap();
    }
}

/// A proxy that loses its client closes its side, and may well pass the answer on.
#[tokio::test]
async fn the_answer_to_an_incomplete_body_counts_the_chunks_that_were_in_flight() {
    let api = Api::start_with(two_small_chunks).await;
    let blocker = lock(&api).await;
    let observer = api.database.connect().await;
    let mut connection = begin(&api, &LINE.repeat(25)).await;
    until("two chunks must be committed at once", async || waiting(&observer).await == 2).await;
    connection.shutdown().await.unwrap();
    blocker.batch_execute("ROLLBACK").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 408 "), "{answer}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["accepted"], 20, "{problem}");
    assert_eq!(api.rows().await[1], 20);
}

#[tokio::test]
async fn the_other_chunks_end_before_a_failed_one_is_answered() {
    let api = Api::start_with(two_small_chunks).await;
    let holder = refuse_or_hold(&api).await;
    let observer = api.database.connect().await;
    let chunk = |description| -> String {
        (0..LINES).map(|_| base_item(Uuid::now_v7(), description)).collect()
    };
    let sent = upload(&api, "/base-items", chunk("wait") + &chunk("refuse") + &chunk("more"));
    until("the first chunk must wait", async || waiting(&observer).await == 1).await;
    let refused = "ingest_database_errors_total{kind=\"refused\"}";
    until("the second one must fail", async || gauge(&api, refused).await == 1).await;
    for _ in 0..20 {
        assert_eq!(gauge(&api, "ingest_uploads").await, 1, "the first chunk has not ended");
    }
    release(&holder).await;
    let answer = sent.await.unwrap();
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert_eq!(api.rows().await[0], 10);
    until_ended(&api).await;
}

#[tokio::test]
async fn the_first_of_two_lines_with_the_same_id_is_stored_also_if_its_chunk_is_slow() {
    let api = Api::start_with(two_small_chunks).await;
    let holder = refuse_or_hold(&api).await;
    let observer = api.database.connect().await;
    let [slow, id] = [Uuid::nil(), Uuid::now_v7()];
    let others = |count: usize| -> String {
        (0..count).map(|_| base_item(Uuid::now_v7(), "another")).collect()
    };
    let lines = base_item(slow, "wait")
        + &others(LINES - 2)
        + &base_item(id, "the first")
        + &base_item(id, "the second")
        + &base_item(id, "the first")
        + &others(2 * LINES - 2);
    let sent = upload(&api, "/base-items", lines);
    until("the first chunk must wait", async || waiting(&observer).await == 1).await;
    for _ in 0..20 {
        assert_eq!(api.rows().await[0], 0, "the chunk with the same id must wait");
    }
    release(&holder).await;
    let answer = sent.await.unwrap();
    assert_eq!(answer.counts(), [28, 1, 1], "{}", answer.body);
    assert_eq!(answer.errors(), [(11, Some("id"))]);
    assert_eq!(api.get(&format!("/base-items/{id}")).await.body["description"], "the first");
}

#[tokio::test]
async fn single_rows_are_stored_while_uploads_have_all_places_to_commit() {
    // All uploads are on one thread.
    let api = Api::start_with(|settings| {
        two_small_chunks(settings);
        settings.http.workers = NonZeroUsize::MIN;
    })
    .await;
    let places = Settings::load().unwrap().bulk.max_concurrent_commits.get();
    let blocker = api.database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE base_items IN SHARE MODE").await.unwrap();
    let observer = api.database.connect().await;
    // More chunks than the pool has connections.
    let lines = || (0..2 * LINES).map(|_| base_item(Uuid::now_v7(), "a thing")).collect::<String>();
    let uploads: Vec<_> = (0..12).map(|_| upload(&api, "/base-items", lines())).collect();
    let taken = i64::try_from(places).unwrap();
    until("uploads must have all places", async || waiting(&observer).await == taken).await;
    for _ in 0..20 {
        let answer = api.post("/users", &json!({})).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert_eq!(waiting(&observer).await, taken);
    }
    blocker.batch_execute("ROLLBACK").await.unwrap();
    for sent in uploads {
        let answer = sent.await.unwrap();
        assert_eq!(answer.counts(), [20, 0, 0], "{}", answer.body);
    }
}
