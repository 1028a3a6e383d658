//! The OpenAPI document and its pages.

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
