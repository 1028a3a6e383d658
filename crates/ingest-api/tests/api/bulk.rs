//! Uploads of many rows.

use serde_json::json;
use uuid::Uuid;

use crate::support::Api;

const NDJSON: &str = "application/x-ndjson";

#[tokio::test]
async fn good_lines_are_stored_and_bad_ones_named() {
    let api = Api::start().await;
    let (base_item, ..) = api.parents().await;
    let (id, nobody) = (Uuid::now_v7(), Uuid::now_v7());
    let lines = [
        format!(r#"{{"base_item_id":"{base_item}"}}"#),
        format!(r#"{{"id":"{id}","base_item_id":"{base_item}","created_at":"2020-01-01T00:00:00Z"}}"#),
        String::new(),
        format!(r#"{{"id":"{id}","base_item_id":"{base_item}"}}"#),
        format!(r#"{{"id":"{id}","base_item_id":"{base_item}","created_at":"2021-01-01T00:00:00Z"}}"#),
        format!(r#"{{"base_item_id":"{nobody}"}}"#),
        "{".to_owned(),
        format!(r#"{{"base_item_id":"{}"}}"#, "x".repeat(70_000)),
        format!(r#"{{"base_item_id":"{base_item}","created_at":"2027-01-01T00:00:00Z"}}"#),
        format!(r#"{{"base_item_id":"{base_item}"}}"#),
    ];
    let answer = api.post_text("/items", NDJSON, &lines.join("\n")).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    let counts = ["accepted", "repeated", "rejected"].map(|name| answer.body[name].as_u64().unwrap());
    assert_eq!(counts, [3, 1, 5]);
    let errors = answer.body["errors"].as_array().unwrap();
    let mut named: Vec<_> =
        errors.iter().map(|error| (error["line"].as_u64().unwrap(), error["field"].clone())).collect();
    named.sort_by_key(|(line, _)| *line);
    let expected = [
        (5, json!("id")),
        (6, json!("base_item_id")),
        (7, json!(null)),
        (8, json!("the line")),
        (9, json!("created_at")),
    ];
    assert_eq!(named, expected);
    assert_eq!(api.rows().await, [1, 1, 4, 0]);
}

#[tokio::test]
async fn an_upload_of_many_chunks_may_be_repeated() {
    let api = Api::start().await;
    let (base_item, ..) = api.parents().await;
    let line = |_| format!(r#"{{"id":"{}","base_item_id":"{base_item}"}}"#, Uuid::now_v7());
    let body = (0..3_500).map(line).collect::<Vec<_>>().join("\n") + "\n";
    let first = api.post_text("/items", NDJSON, &body).await;
    assert_eq!((first.status, first.body), (200, json!({ "accepted": 3_500, "repeated": 0, "rejected": 0 })));
    let again = api.post_text("/items", NDJSON, &body).await;
    assert_eq!((again.status, again.body), (200, json!({ "accepted": 0, "repeated": 3_500, "rejected": 0 })));
    assert_eq!(api.rows().await, [1, 1, 3_501, 0]);
}

#[tokio::test]
async fn a_line_that_is_not_utf8_is_rejected_alone() {
    let api = Api::start().await;
    let request = api.request("POST", "/users").header("content-type", NDJSON);
    let answer = api.send(request.body(b"{}\n\"\xff\"\n{}".to_vec())).await;
    assert_eq!(
        (answer.status, &answer.body["accepted"], &answer.body["rejected"]),
        (422, &json!(2), &json!(1))
    );
}
