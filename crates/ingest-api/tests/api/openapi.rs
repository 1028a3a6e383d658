//! The OpenAPI description, and the answer to methods that it does not have.

use ingest_api::openapi::document;
use ingest_api::settings::Settings;
use service_kit::settings::ProgramSettings as _;

use crate::support::Api;

#[test]
fn the_description_in_the_repository_is_up_to_date() {
    let description = document(&Settings::load().unwrap()).to_pretty_json().unwrap();
    expect_test::expect_file!["../../../../docs/openapi/ingest-api.json"]
        .assert_eq(&(description + "\n"));
}

/// A client that is made from the description must know that such a request can be sent again.
#[test]
fn every_operation_with_a_request_body_describes_the_answer_to_one_that_does_not_arrive() {
    let description = serde_json::to_value(document(&Settings::load().unwrap())).unwrap();
    let mut with_body = 0;
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if operation.get("requestBody").is_some() {
                assert!(operation["responses"].get("408").is_some(), "{method} {path}");
                with_body += 1;
            }
        }
    }
    assert_eq!(with_body, 5, "four kinds of rows, and the new owner of an item");
}

#[tokio::test]
async fn the_description_that_is_served_has_the_limits_of_the_settings() {
    let api =
        Api::start_with(|settings| settings.limits.max_page_rows = 7.try_into().unwrap()).await;
    let description = api.get("/openapi.json").await;
    assert_eq!((description.status, &description.body["openapi"]), (200, &"3.2.0".into()));
    let parameters = description.body["paths"]["/items"]["get"]["parameters"].as_array().unwrap();
    let limit = parameters.iter().find(|parameter| parameter["name"] == "limit").unwrap();
    assert_eq!(limit["schema"]["maximum"], 7);
    let longest = &description.body["components"]["schemas"]["Description"]["maxLength"];
    assert_eq!(longest, ingest_api::model::DESCRIPTION_CHARACTERS);
}

#[tokio::test]
async fn an_unknown_method_is_answered_405_with_the_methods_of_the_path() {
    let api = Api::start().await;
    let id = uuid::Uuid::now_v7();
    let paths = [
        ("/items".to_owned(), "POST, GET, HEAD"),
        (format!("/items/{id}"), "GET, HEAD, DELETE"),
        (format!("/items/{id}/ownership"), "PUT"),
        ("/openapi.json".to_owned(), "GET, HEAD"),
    ];
    for (path, allowed) in &paths {
        for method in ["PATCH", "TRACE", "QUERY"] {
            let answer = api.send(api.request(method, path)).await;
            assert_eq!(
                (answer.status, answer.headers["allow"].to_str().unwrap()),
                (405, *allowed),
                "{method} {path}"
            );
        }
    }
}
