//! Uploads of many rows as a JSON array.

use std::fmt::Write as _;

use local_stack::test_database::TEST_KEY;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::{Api, JSON, NDJSON};

#[tokio::test]
async fn an_array_is_an_upload_whose_lines_are_its_elements() {
    let api = Api::start().await;
    let (base_item, ..) = api.parents().await;
    let (id, unknown_id) = (Uuid::now_v7(), Uuid::now_v7());
    let elements = [
        format!(r#"{{"id":"{id}","base_item_id":"{base_item}"}}"#),
        format!(r#"{{"id":"{id}","base_item_id":"{base_item}"}}"#),
        format!(r#"{{"base_item_id":"{unknown_id}"}}"#),
        "{\"base_item_id\": }".to_owned(),
        String::new(),
        format!(r#"{{"base_item_id":"{}"}}"#, "x".repeat(70_000)),
        "[]".to_owned(),
        "7".to_owned(),
        format!("{{\"base_item_id\"\n:\"{base_item}\"}}"),
    ];
    let array = format!("\u{feff} \n[{}\n]\n", elements.join(" ,\n"));
    let answer = api.post_text("/items", JSON, &array).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(answer.counts(), [2, 1, 6]);
    let mut errors = answer.errors();
    errors.sort_unstable();
    let expected = [
        (3, Some("base_item_id")),
        (4, None),
        (5, Some("the element")),
        (6, Some("the element")),
        (7, Some("the body")),
        (8, Some("the body")),
    ];
    assert_eq!(errors, expected);
    assert_eq!(api.rows().await, [1, 1, 3, 0]);
}

#[tokio::test]
async fn an_array_may_be_empty_or_long_and_ignores_the_idempotency_key() {
    let api = Api::start().await;
    for empty in ["[]", " [ ] "] {
        let answer = api.post_text("/users", JSON, empty).await;
        assert_eq!((answer.status, answer.counts()), (200, [0, 0, 0]));
    }
    let mut array = "[".to_owned();
    for _ in 0..3_500 {
        write!(array, r#"{{"id":"{}"}},"#, Uuid::now_v7()).unwrap();
    }
    array.pop();
    array.push(']');
    for counts in [[3_500, 0, 0], [0, 3_500, 0]] {
        let request = api.request("POST", "/users").header("content-type", JSON);
        let request = request.header("idempotency-key", Uuid::now_v7().to_string());
        let answer = api.send(request.body(array.clone())).await;
        assert_eq!((answer.status, answer.counts()), (200, counts));
    }
    let request = api.request("POST", "/users").header("content-type", JSON);
    let answer = api.send(request.header("idempotency-key", "once").body("[{}]")).await;
    assert_eq!((answer.status, &answer.body["field"]), (400, &json!("Idempotency-Key")));
    // As lines, an array is one row of the wrong type.
    let answer = api.post_text("/users", NDJSON, "[{}]").await;
    assert_eq!(answer.errors(), [(1, Some("the body"))]);
    assert_eq!(api.rows().await, [0, 3_500, 0, 0]);
}

#[tokio::test]
async fn an_array_that_ends_too_early_or_too_late_stores_the_elements_before() {
    let api = Api::start().await;
    for (array, element) in
        [("[{},{},{}", 3), ("[{},{},", 3), ("[{},{}}", 2), ("[{},{}] {}", 3), ("[{},{}],", 3)]
    {
        let before = api.rows().await[1];
        let answer = api.post_text("/users", JSON, array).await;
        let expected = (400, &json!("/problems/malformed-body"));
        assert_eq!((answer.status, &answer.body["type"]), expected, "{array}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("element {element}: ")), "{array}: {detail}");
        assert_eq!(answer.counts(), [element - 1, 0, 1], "{array}");
        assert_eq!(answer.errors(), [(element, None)], "{array}");
        assert_eq!(api.rows().await[1] - before, i64::try_from(element - 1).unwrap());
    }
}

#[tokio::test]
async fn an_array_that_is_cut_off_is_408_and_says_what_is_stored() {
    let api = Api::start().await;
    let mut connection = TcpStream::connect(api.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /users HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEST_KEY}\r\ncontent-type: {JSON}\r\ncontent-length: 9999\r\n\r\n["
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all("{},".repeat(2_500).as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 408 "), "{answer}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["type"], "/problems/incomplete-body");
    assert_eq!(problem["accepted"], 2_000, "{problem}");
    assert_eq!(api.rows().await, [0, 2_000, 0, 0]);
}
