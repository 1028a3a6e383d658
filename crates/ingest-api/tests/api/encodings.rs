//! Compressed bodies.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Api, JSON, NDJSON};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::bulk::compress(text.as_bytes(), 3).unwrap()
}

async fn post(api: &Api, media_type: &str, encoding: &str, body: Vec<u8>) -> Answer {
    let request = api.request("POST", "/users").header("content-type", media_type);
    api.send(request.header("content-encoding", encoding).body(body)).await
}

#[tokio::test]
async fn rows_and_uploads_may_be_compressed() {
    let api = Api::start().await;
    for (encoding, body) in [
        ("gzip", gzip("{}")),
        ("X-GZip", gzip("{}")),
        ("zstd", zstd("{}")),
        ("identity", b"{}".to_vec()),
        ("gzip", [gzip("{"), gzip("}")].concat()),
    ] {
        let answer = post(&api, JSON, encoding, body).await;
        assert_eq!(answer.status, 201, "{encoding}: {}", answer.body);
    }
    let lines = "{}\n".repeat(2_500);
    let array = format!("[{}]", vec!["{}"; 2_500].join(","));
    for (media_type, text) in [(NDJSON, lines.as_str()), (JSON, array.as_str())] {
        for (encoding, body) in [("gzip", gzip(text)), ("zstd", zstd(text))] {
            let answer = post(&api, media_type, encoding, body).await;
            assert_eq!((answer.status, answer.counts()), (200, [2_500, 0, 0]), "{encoding}");
        }
    }
    let user = api.post("/users", &json!({})).await.body;
    let (.., item) = api.parents().await;
    let ownership = api
        .request("PUT", &format!("/items/{item}/ownership"))
        .header("content-type", JSON)
        .header("content-encoding", "gzip")
        .body(gzip(&json!({ "to": user["id"] }).to_string()));
    assert_eq!(api.send(ownership).await.status, 204);
}

#[tokio::test]
async fn limits_count_decompressed_bytes() {
    let api = Api::start().await;
    let id = |length| format!(r#"{{"id":"{}"{}}}"#, Uuid::now_v7(), " ".repeat(length));
    let encodings: [(_, fn(&str) -> _); 2] = [("gzip", gzip), ("zstd", zstd)];
    for (encoding, encode) in encodings {
        let long = post(&api, JSON, encoding, encode(&id(70_000))).await;
        assert_eq!((long.status, &long.body["type"]), (413, &json!("/problems/too-large")));
        let answer = post(&api, JSON, encoding, encode(&id(60_000))).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        // Hundreds of times as long as what is sent: a long line, and a long upload.
        let body = encode(&format!("{}\n{}\n{{}}", id(900_000), id(60_000)));
        assert!(body.len() < 2_000, "{} bytes", body.len());
        let answer = post(&api, NDJSON, encoding, body).await;
        assert_eq!((answer.status, answer.counts()), (422, [2, 0, 1]), "{}", answer.body);
        assert_eq!(answer.errors(), [(1, Some("the line"))]);
    }
}

/// The service would go on with them for minutes, also after the client has gone.
#[tokio::test]
async fn an_upload_that_grows_too_much_is_413_and_says_what_is_stored() {
    let api = Api::start().await;
    let many_rows = "{}\n".repeat(200_000);
    let long_line = format!("{}{}", "{}\n".repeat(1_500), " ".repeat(50_000_000));
    for (body, detail) in [
        (gzip(&many_rows), "10000 lines"),
        (zstd(&many_rows), "10000 lines"),
        (zstd(&long_line), "1 MiB"),
    ] {
        assert!(body.len() < 40_000, "{} bytes", body.len());
        let before = api.rows().await[1];
        let encoding = if body.starts_with(b"\x1f\x8b") { "gzip" } else { "zstd" };
        let answer = post(&api, NDJSON, encoding, body).await;
        let problem = &answer.body;
        let expected = (413, &json!("/problems/too-compressed"));
        assert_eq!((answer.status, &problem["type"]), expected, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
        let stored = api.rows().await[1] - before;
        assert_eq!(problem["accepted"], stored, "{problem}");
        assert!((1_000..20_000).contains(&stored), "{problem}");
    }
}

#[tokio::test]
async fn what_cannot_be_decompressed_is_refused() {
    let api = Api::start().await;
    let mut with_large_window = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    with_large_window.set_parameter(zstd::stream::raw::CParameter::WindowLog(24)).unwrap();
    with_large_window.write_all(&vec![b' '; 20_000_000]).unwrap();
    let with_large_window = with_large_window.finish().unwrap();
    let lines = "{}\n".repeat(2_500);
    let cut_off = |body: Vec<u8>| body[..body.len() - 1].to_vec();
    for (encoding, body, detail) in [
        ("gzip", lines.clone().into_bytes(), "not gzip"),
        ("zstd", lines.clone().into_bytes(), "not zstd"),
        ("gzip", cut_off(gzip(&lines)), "not gzip"),
        ("zstd", cut_off(zstd(&lines)), "not zstd"),
        ("gzip", [gzip(&lines), lines.into_bytes()].concat(), "not gzip"),
        ("gzip", Vec::new(), "not gzip"),
        ("zstd", with_large_window, "window is larger than 8 MiB"),
    ] {
        for media_type in [JSON, NDJSON] {
            let answer = post(&api, media_type, encoding, body.clone()).await;
            let expected = (400, &json!("/problems/malformed-body"));
            assert_eq!((answer.status, &answer.body["type"]), expected, "{}", answer.body);
            assert!(answer.body["detail"].as_str().unwrap().contains(detail), "{}", answer.body);
            let counts = answer.body.get("accepted").and_then(Value::as_u64);
            assert_eq!(counts.is_some(), media_type == NDJSON, "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn other_codings_are_415_with_the_accepted_ones() {
    let api = Api::start().await;
    for media_type in [JSON, NDJSON] {
        for encoding in ["br", "gzip, gzip", "zstd, identity, gzip"] {
            let answer = post(&api, media_type, encoding, gzip("{}")).await;
            let problem = "/problems/unsupported-content-encoding";
            assert_eq!((answer.status, &answer.body["type"]), (415, &json!(problem)));
            assert_eq!(answer.headers["accept-encoding"], "gzip, zstd");
        }
    }
    let answer = post(&api, "text/plain", "gzip", gzip("{}")).await;
    assert_eq!(answer.status, 415);
    assert!(!answer.headers.contains_key("accept-encoding"), "it is about the media type");
    assert_eq!(api.rows().await, [0; 4]);
}
