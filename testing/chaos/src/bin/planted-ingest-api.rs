//! ingest-api with a planted error, which the checks of a run must find.

use std::process::ExitCode;

use chaos::planted::{Planted, VARIABLE};
use ingest_api::startup;
use service_kit::command::Command;
use service_kit::failure::exit_code;
use time::OffsetDateTime;

#[tokio::main]
async fn main() -> ExitCode {
    let delivery = Planted::delivery(&std::env::var(VARIABLE).unwrap_or_default());
    let run = Command::Serve.execute(|settings, shutdown| {
        startup::build_with(settings, OffsetDateTime::now_utc, delivery, shutdown)
    });
    exit_code(run.await)
}
