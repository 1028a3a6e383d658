//! Uploads that stand still, and others meanwhile.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Api, NDJSON};

/// The memory that the shortest line of a user takes.
const ROW_BYTES: u64 = 2 + 18 + 8 + 16;

/// Begins an upload of users, and sends no more than this of it.
async fn begin(api: &Api, encoding: &str, part: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(api.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /users HTTP/1.1\r\nhost: localhost\r\ncontent-type: {NDJSON}\r\n\
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
        settings.bulk.max_waiting_bytes = 4_000.try_into().unwrap();
    })
    .await;
    let mut slow = Vec::new();
    for number in 1..=5 {
        slow.push(begin(&api, "identity", b"{}\n{").await);
        until(&api, "ingest_upload_waiting_bytes", number * ROW_BYTES).await;
    }
    let answer = api.upload("/users", &"{}\n".repeat(1_000)).await;
    assert_eq!((answer.status, answer.counts()), (200, [1_000, 0, 0]));
    let start = Instant::now();
    while api.rows().await[1] < 1_005 {
        assert!(start.elapsed() < Duration::from_secs(20), "they must commit what they have");
    }
    until(&api, "ingest_upload_waiting_bytes", 0).await;
}

#[tokio::test]
async fn too_many_uploads_with_zstd_do_not_block_others() {
    let api = Api::start_with(|settings| {
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
