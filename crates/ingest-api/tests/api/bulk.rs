//! Uploads of many rows.

use std::num::NonZeroUsize;

use local_stack::test_database::TEST_KEY;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{Api, JSON, NDJSON};

/// A line.
fn item(id: Uuid, base_item: &str, time: &str) -> String {
    format!(r#"{{"id":"{id}","base_item_id":"{base_item}","created_at":"{time}"}}"#)
}

#[tokio::test]
async fn good_lines_are_stored_and_bad_lines_are_named() {
    let api = Api::start().await;
    let (base_item, ..) = api.parents().await;
    let (id, unknown_id) = (Uuid::now_v7(), Uuid::now_v7());
    let lines = [
        format!(r#"{{"base_item_id":"{base_item}"}}"#),
        item(id, &base_item, "2020-01-01T00:00:00Z"),
        String::new(),
        format!(r#"{{"id":"{id}","base_item_id":"{base_item}"}}"#),
        item(id, &base_item, "2021-01-01T00:00:00Z"),
        format!(r#"{{"base_item_id":"{unknown_id}"}}"#),
        "{".to_owned(),
        format!(r#"{{"base_item_id":"{}"}}"#, "x".repeat(70_000)),
        format!(r#"{{"base_item_id":"{base_item}","created_at":"2027-01-01T00:00:00Z"}}"#),
        format!(r#"{{"base_item_id":"{base_item}"}}"#),
    ];
    let answer = api.upload("/items", &lines.join("\n")).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(answer.counts(), [3, 1, 5]);
    let expected = [
        (5, Some("id")),
        (6, Some("base_item_id")),
        (7, None),
        (8, Some("the line")),
        (9, Some("created_at")),
    ];
    assert_eq!(answer.errors(), expected);
    assert_eq!(api.rows().await, [1, 1, 4, 0]);
}

#[tokio::test]
async fn an_upload_of_many_chunks_can_be_repeated() {
    let api = Api::start().await;
    let (base_item, ..) = api.parents().await;
    let line = |_| format!(r#"{{"id":"{}","base_item_id":"{base_item}"}}"#, Uuid::now_v7());
    let body = (0..3_500).map(line).collect::<Vec<_>>().join("\n") + "\n";
    for (accepted, repeated) in [(3_500, 0), (0, 3_500)] {
        let answer = api.upload("/items", &body).await;
        let counts = json!({ "accepted": accepted, "repeated": repeated, "rejected": 0 });
        assert_eq!((answer.status, answer.body), (200, counts));
    }
    assert_eq!(api.rows().await, [1, 1, 3_501, 0]);
}

/// Counts the statements that insert items, also those that are refused, by a sequence.
async fn count_inserts(client: &Client) {
    let count = "CREATE SEQUENCE inserts; \
         CREATE FUNCTION count_inserts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
         AS 'BEGIN PERFORM nextval(''inserts''); RETURN NULL; END'; \
         CREATE TRIGGER inserts BEFORE INSERT ON items FOR EACH STATEMENT \
         EXECUTE FUNCTION count_inserts()";
    client.batch_execute(count).await.unwrap();
}

/// The number of statements until now.
async fn inserts(client: &Client) -> i64 {
    client.query_one("SELECT last_value FROM inserts", &[]).await.unwrap().get(0)
}

/// One statement per line would take longer than the time limit of a chunk.
#[tokio::test]
async fn many_lines_with_the_same_id_take_few_statements() {
    let api = Api::start().await;
    let (base_item, ..) = api.parents().await;
    let superuser = api.database.connect().await;
    count_inserts(&superuser).await;
    let lines = |id: Uuid, content: &dyn Fn(u32) -> (String, &'static str)| {
        let line = |number| {
            let (base_item, time) = content(number);
            item(id, &base_item, time)
        };
        (0..1_000).map(line).collect::<Vec<_>>().join("\n")
    };
    let (id, unknown_id, time) = (Uuid::now_v7(), Uuid::now_v7(), "2026-01-01T00:00:00Z");
    let same = lines(id, &|_| (base_item.clone(), time));
    let other = lines(id, &|_| (base_item.clone(), "2026-01-02T00:00:00Z"));
    let unknown = lines(unknown_id, &|_| (Uuid::now_v7().to_string(), time));
    let known_last = format!("{unknown}\n{}", lines(unknown_id, &|_| (base_item.clone(), time)));
    for (what, body, expected) in [
        ("new", &same, [1, 999, 0]),
        ("repeated", &same, [0, 1_000, 0]),
        ("with other content", &other, [0, 0, 1_000]),
        ("with unknown parents", &unknown, [0, 0, 1_000]),
        ("of which only the last half has a parent", &known_last, [1, 999, 1_000]),
    ] {
        let answer = api.upload("/items", body).await;
        assert_eq!(answer.counts(), expected, "{what}: {}", answer.body);
    }
    // One statement for each of the six chunks.
    assert_eq!(inserts(&superuser).await, 6);
}

/// New rows are stored by the cheapest statement, which refuses all rows of a chunk if it refuses
/// one. That may happen to the chunks in flight, but not to each chunk of an upload.
#[tokio::test]
async fn an_upload_is_expected_to_be_new_until_a_chunk_is_not() {
    const CHUNKS: i64 = 20;
    const ROWS: u64 = 200;
    let mut in_flight = 0;
    let api = Api::start_with(|settings| {
        settings.bulk.max_chunk_lines = NonZeroUsize::new(10).unwrap();
        in_flight = settings.bulk.max_chunks_in_flight.get();
    })
    .await;
    let (base_item, ..) = api.parents().await;
    let superuser = api.database.connect().await;
    count_inserts(&superuser).await;
    let ids: Vec<_> = (0..ROWS).map(|_| Uuid::now_v7()).collect();
    let lines = |first: &str| {
        let line = |(index, id)| {
            item(id, if index == 0 { first } else { &base_item }, "2026-01-01T00:00:00Z")
        };
        ids.iter().copied().enumerate().map(line).collect::<Vec<_>>().join("\n")
    };
    // The first line refers to a row that does not exist.
    let first = api.upload("/items", &lines(&Uuid::now_v7().to_string())).await;
    assert_eq!(first.counts(), [ROWS - 1, 0, 1], "{}", first.body);
    let after_first = inserts(&superuser).await;
    let second = api.upload("/items", &lines(&base_item)).await;
    assert_eq!(second.counts(), [1, ROWS - 1, 0], "{}", second.body);
    let of_second = inserts(&superuser).await - after_first;
    let most = CHUNKS + i64::try_from(in_flight).unwrap();
    for statements in [after_first, of_second] {
        assert!((CHUNKS + 1..=most).contains(&statements), "{after_first} and {of_second}");
    }
}

/// Lines that are compared in memory get the outcome that the database would have given them.
#[tokio::test]
async fn a_line_is_compared_with_the_earlier_lines_of_the_same_id() {
    let api = Api::start().await;
    let (base_item, ..) = api.parents().await;
    let (id, unknown_id) = (Uuid::now_v7(), Uuid::now_v7());
    let unknown = unknown_id.to_string();
    let lines = [
        item(id, &unknown, "2026-01-01T00:00:00Z"),
        item(id, &base_item, "2026-01-02T00:00:00Z"),
        item(id, &unknown, "2026-01-02T00:00:00Z"),
        item(id, &base_item, "2026-01-01T00:00:00Z"),
        item(id, &base_item, "2026-01-02T00:00:00Z"),
    ];
    let answer = api.upload("/items", &lines.join("\n")).await;
    assert_eq!(answer.counts(), [1, 1, 3], "{}", answer.body);
    let lines: Vec<_> = answer.errors().iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 3, 4]);
    let stored = api.get(&format!("/items/{id}")).await;
    assert_eq!(stored.body["created_at"], "2026-01-02T00:00:00Z");
}

#[tokio::test]
async fn a_line_that_is_not_utf8_is_rejected_alone() {
    let api = Api::start().await;
    let request = api.request("POST", "/users").header("content-type", NDJSON);
    let answer = api.send(request.body(b"{}\n\"\xff\"\n{}".to_vec())).await;
    assert_eq!((answer.status, answer.counts()), (422, [2, 0, 1]));
}

#[tokio::test]
async fn a_byte_order_mark_and_other_names_of_the_media_type_are_accepted() {
    let api = Api::start().await;
    for media_type in [NDJSON, "application/ndjson", "application/jsonl; charset=utf-8"] {
        let answer = api.post_text("/users", media_type, "\u{feff}{}\n{}\n").await;
        assert_eq!((answer.status, answer.counts()), (200, [2, 0, 0]), "{media_type}");
    }
    let answer = api.post_text("/users", NDJSON, "\u{feff}\n{}").await;
    assert_eq!((answer.status, answer.counts()), (200, [1, 0, 0]));
    let answer = api.post_text("/users", JSON, "\u{feff}{}").await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

/// A connection that breaks on its way, as seen through a proxy: the body ends early.
#[tokio::test]
async fn a_body_that_does_not_arrive_is_408_and_an_upload_says_what_is_stored() {
    let api = Api::start().await;
    let lines = "{}\n".repeat(2_500);
    for (media_type, length, body, accepted) in [
        (JSON, "content-length: 9999", "{", None),
        (NDJSON, "content-length: 9999", lines.as_str(), Some(2_000)),
        // The server cannot tell a chunk whose size is no number from a body that is cut off.
        (JSON, "transfer-encoding: chunked", "zz\r\n", None),
    ] {
        let mut connection =
            TcpStream::connect(api.url.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST /users HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEST_KEY}\r\ncontent-type: {media_type}\r\n{length}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(body.as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(head.to_lowercase().contains("\r\nconnection: close"), "{answer}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["type"], "/problems/incomplete-body");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("it ended too early, or its chunks"), "{problem}");
        assert_eq!(problem.get("accepted").and_then(Value::as_u64), accepted, "{problem}");
    }
    assert_eq!(api.rows().await, [0, 2_000, 0, 0]);
}
