//! The OpenAPI document and its pages.

use std::io::Read as _;

use service_kit::settings::ProgramSettings as _;
use sse_gateway::routes::document;
use sse_gateway::settings::Settings;

use crate::support::Gateway;

fn description() -> String {
    document((&Settings::load().unwrap().history).into()).to_pretty_json().unwrap()
}

#[test]
fn the_document_in_the_repository_is_up_to_date() {
    expect_test::expect_file!["../../../../docs/openapi/sse-gateway.json"]
        .assert_eq(&(description() + "\n"));
}

#[tokio::test]
async fn the_document_is_served_and_its_pages_load_nothing_from_other_hosts() {
    let gateway = Gateway::start("http://127.0.0.1:9");
    let served = gateway.get("/openapi.json", "*/*").await.text().await.unwrap();
    assert_eq!(served, description());
    let page = gateway.get("/docs", "text/html").await;
    assert_eq!((page.status().as_u16(), page.url().path()), (200, "/docs/"));
    let page = page.text().await.unwrap();
    let loaded = page.split(['"', '\'']).filter(|text| text.contains("//"));
    assert_eq!(loaded.collect::<Vec<_>>(), Vec::<&str>::new(), "{page}");
    let settings = gateway.get("/docs/swagger-initializer.js", "*/*").await.text().await.unwrap();
    assert!(settings.contains("/openapi.json") && !settings.contains("://"), "{settings}");
    assert!(settings.contains(r#""validatorUrl": "none""#), "{settings}");
}

#[tokio::test]
async fn the_files_of_the_pages_are_compressed_if_the_client_accepts_that() {
    let gateway = Gateway::start("http://127.0.0.1:9");
    let url = format!("{}/docs/swagger-ui.css", gateway.url);
    let get = async |accepted: Option<&str>| {
        let mut request = reqwest::Client::new().get(&url);
        if let Some(accepted) = accepted {
            request = request.header("accept-encoding", accepted);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let varies = answer.headers()["vary"].to_str().unwrap();
        assert!(varies.contains("accept-encoding"), "{varies}");
        let encoding = answer.headers().get("content-encoding").cloned();
        (encoding, answer.bytes().await.unwrap())
    };
    let (encoding, compressed) = get(Some("br, gzip")).await;
    assert_eq!(encoding.unwrap(), "gzip");
    let mut expected = String::new();
    flate2::read::GzDecoder::new(&*compressed).read_to_string(&mut expected).unwrap();
    assert!(expected.contains(".swagger-ui") && expected.len() > 4 * compressed.len());
    for accepted in [None, Some("identity"), Some("gzip;q=0")] {
        let (encoding, plain) = get(accepted).await;
        assert_eq!((encoding, &*plain), (None, expected.as_bytes()), "{accepted:?}");
    }
}
