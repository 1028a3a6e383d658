//! Uploads that stand still, and others meanwhile.

use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use local_stack::test_database::TEST_KEY;
use serde_json::json;
use service_kit::settings::NonZeroDuration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{self, Api, JSON, NDJSON, waiting, without_shares};

/// The memory that the shortest line of a user takes.
const ROW_BYTES: u64 = 2 + 28 + 8 + 16;

/// Begins an upload of users, and sends no more than this of it.
async fn begin(api: &Api, encoding: &str, part: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(api.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /users HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEST_KEY}\r\ncontent-type: {NDJSON}\r\n\
         content-encoding: {encoding}\r\ncontent-length: 9999\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(part).await.unwrap();
    connection
}

/// Waits until a metric has this value.
async fn until(api: &Api, metric: &str, wanted: u64) {
    let start = Instant::now();
    let line = format!("{metric} {wanted}");
    loop {
        let metrics = api.metrics().await;
        if metrics.lines().any(|other| other == line) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn uploads_that_stand_still_do_not_block_others() {
    let api = Api::start().await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        slow.push(begin(&api, "identity", b"{}\n{").await);
    }
    until(&api, "ingest_uploads", 40).await;
    let answer = api.upload("/users", &"{}\n".repeat(2_500)).await;
    assert_eq!((answer.status, answer.counts()), (200, [2_500, 0, 0]));
    until(&api, "ingest_uploads", 40).await;
    assert_eq!(api.rows().await[1], 2_500, "the slow uploads have committed nothing");
    drop(slow);
    until(&api, "ingest_uploads", 0).await;
    until(&api, "ingest_upload_waiting_bytes", 0).await;
}

#[tokio::test]
async fn uploads_that_stand_still_give_their_memory_to_others() {
    let api = Api::start_with(|settings| {
        without_shares(settings);
        // Half of it is for rows: some 20,000 of them.
        settings.bulk.max_waiting_bytes = 2_000_000.try_into().unwrap();
        settings.bulk.max_line_bytes = 1_000.try_into().unwrap();
        settings.bulk.max_reported_errors = 0;
        settings.bulk.max_chunk_lines = 100_000.try_into().unwrap();
    })
    .await;
    let mut slow = Vec::new();
    for number in 1..=5 {
        slow.push(begin(&api, "identity", b"{}\n{").await);
        until(&api, "ingest_upload_waiting_bytes", number * ROW_BYTES).await;
    }
    let answer = api.upload("/users", &"{}\n".repeat(25_000)).await;
    assert_eq!((answer.status, answer.counts()), (200, [25_000, 0, 0]));
    let start = Instant::now();
    while api.rows().await[1] < 25_005 {
        assert!(start.elapsed() < Duration::from_secs(20), "they must commit what they have");
    }
    until(&api, "ingest_upload_waiting_bytes", 0).await;
}

/// Another upload has used up the memory for rows, so that this one commits what it has while it
/// waits for its client, and the database is slow. That is not the client's fault.
#[tokio::test]
async fn the_time_of_a_commit_is_not_counted_as_the_wait_for_the_client() {
    const IDLE: NonZeroDuration = NonZeroDuration::from_millis(4_000);
    let api = Api::start_with(|settings| {
        without_shares(settings);
        settings.limits.body_idle_timeout = IDLE;
        settings.bulk.max_chunks_in_flight = 1.try_into().unwrap();
        settings.bulk.min_bytes_per_second = 1_000;
        settings.bulk.chunk_timeout = NonZeroDuration::from_millis(60_000);
        settings.pool.statement_timeout = NonZeroDuration::from_millis(60_000);
        settings.bulk.max_waiting_bytes = 2_000_000.try_into().unwrap();
        settings.bulk.max_line_bytes = 1_000.try_into().unwrap();
        settings.bulk.max_reported_errors = 0;
        settings.bulk.max_chunk_lines = 100_000.try_into().unwrap();
    })
    .await;
    let blocker = api.database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE users IN SHARE MODE").await.unwrap();
    let observer = api.database.connect().await;
    let rest = "{}\n".repeat(10_000);
    let mut slow = TcpStream::connect(api.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /users HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEST_KEY}\r\ncontent-type: {NDJSON}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{{}}\n",
        rest.len() + 6
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    // The first row is being committed when the second one must be: then nothing is read.
    for rows in 1..=2 {
        until(&api, "ingest_upload_waiting_bytes", rows * ROW_BYTES).await;
        let lines = "{\"description\":\"x\"}\n".repeat(25_000);
        let other = api.upload("/base-items", &lines).await;
        assert_eq!((other.status, other.counts()), (200, [25_000, 0, 0]));
        support::until("it must commit what it has", async || waiting(&observer).await == 1).await;
        if rows == 1 {
            slow.write_all(b"{}\n").await.unwrap();
        }
    }
    // Longer than the client may send nothing.
    tokio::time::sleep(IDLE.get() + Duration::from_secs(1)).await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    support::until("it must be stored", async || api.rows().await[1] == 2).await;
    slow.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(api.rows().await[1], 10_002);
}

#[tokio::test]
async fn compressed_uploads_that_stand_still_take_bounded_memory_and_others_are_refused_at_once() {
    const PLACES: usize = 5;
    // Of an upload: two lines and two parts of 64 KiB, no errors, and gzip.
    const BYTES: usize = 2 * (1_000 + 65_536) + 288 * 1_024;
    let api = Api::start_with(|settings| {
        without_shares(settings);
        settings.bulk.max_line_bytes = 1_000.try_into().unwrap();
        settings.bulk.max_reported_errors = 0;
        settings.bulk.max_waiting_bytes = (2 * (PLACES * BYTES + 1_000)).try_into().unwrap();
    })
    .await;
    // A line, and the beginning of the next one.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(b"{}\n{\"id\":").unwrap();
    encoder.flush().unwrap();
    let part = encoder.get_ref().clone();
    let mut slow = Vec::new();
    for number in 1..=PLACES {
        slow.push(begin(&api, "gzip", &part).await);
        let reserved = (number * BYTES).try_into().unwrap();
        until(&api, "ingest_upload_reserved_bytes", reserved).await;
    }
    for _ in 0..20 {
        let mut refused = begin(&api, "gzip", &part).await;
        let mut answer = [0; 1_000];
        let length = refused.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        assert!(answer.starts_with("http/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nretry-after: "), "{answer}");
    }
    until(&api, "ingest_uploads", PLACES.try_into().unwrap()).await;
    let gzip = |media_type| {
        let request = api.request("POST", "/users").header("content-type", media_type);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"{}").unwrap();
        api.send(request.header("content-encoding", "gzip").body(encoder.finish().unwrap()))
    };
    assert_eq!(gzip(JSON).await.status, 503, "a row needs a decoder, too");
    let refused = api.upload("/users", "{}").await;
    assert_eq!((refused.status, &refused.body["type"]), (503, &json!("/problems/unavailable")));
    assert_eq!(api.post("/users", &json!({})).await.status, 201, "it needs no such memory");
    drop(slow);
    until(&api, "ingest_upload_reserved_bytes", 0).await;
    assert_eq!(gzip(JSON).await.status, 201);
    assert_eq!(gzip(NDJSON).await.status, 200);
}

#[tokio::test]
async fn too_many_uploads_with_zstd_do_not_block_others() {
    let api = Api::start_with(|settings| {
        without_shares(settings);
        settings.bulk.max_zstd_uploads = 2.try_into().unwrap();
    })
    .await;
    // The beginning of every frame.
    let magic = b"\x28\xb5\x2f\xfd";
    let slow = [begin(&api, "zstd", magic).await, begin(&api, "zstd", magic).await];
    until(&api, "ingest_uploads", 2).await;
    let body = zstd::bulk::compress(b"{}", 3).unwrap();
    let zstd = |media_type| {
        let request = api.request("POST", "/users").header("content-type", media_type);
        api.send(request.header("content-encoding", "zstd").body(body.clone()))
    };
    let refused = zstd(NDJSON).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(zstd("application/json").await.status, 201, "a single row needs no place");
    assert_eq!(api.upload("/users", "{}").await.status, 200);
    drop(slow);
    until(&api, "ingest_uploads", 0).await;
    assert_eq!(zstd(NDJSON).await.status, 200);
}
