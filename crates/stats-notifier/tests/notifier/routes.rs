//! What the internal routes answer.

use actix_web::{App, test, web};
use serde_json::Value;
use stats_notifier::history::HistoryReader;
use stats_notifier::settings::Settings;

use crate::support::Fixture;

/// The status and the `type` of the answer to a query for all days with created items.
async fn history_of_days(settings: &Settings) -> (u16, Option<String>) {
    let history = HistoryReader::new(&settings.database, &settings.history).unwrap();
    let app =
        App::new().app_data(web::Data::new(history)).configure(stats_notifier::routes::configure);
    let service = test::init_service(app).await;
    let request = test::TestRequest::get().uri("/internal/v1/history/item-creation/day?limit=10");
    let response = test::call_service(&service, request.to_request()).await;
    let status = response.status().as_u16();
    let body: Value = test::read_body_json(response).await;
    (status, body["type"].as_str().map(str::to_owned))
}

/// A repeated query would fail again, so the answer must not ask for one.
#[tokio::test]
async fn a_row_that_cannot_be_read_is_an_internal_error() {
    let fixture = Fixture::create().await;
    let problem = |name: &str| Some(format!("/problems/{name}"));
    assert_eq!(history_of_days(&fixture.settings).await, (503, problem("unavailable")));
    drop(fixture.lead().await);
    assert_eq!(history_of_days(&fixture.settings).await, (200, None));
    fixture.execute("UPDATE rollup SET bucket = '20000-01-01Z' WHERE unit = 'day'").await;
    assert_eq!(history_of_days(&fixture.settings).await, (500, problem("internal")));
}
