//! Receives events over REST and writes them to Postgres.

use std::process::ExitCode;

use ingest_api::startup::{ABOUT, build};
use time::OffsetDateTime;

#[tokio::main]
async fn main() -> ExitCode {
    let purpose = "Receives events over REST and writes them to Postgres";
    service_kit::command::main(&ABOUT, purpose, |settings, shutdown| {
        build(settings, OffsetDateTime::now_utc, shutdown)
    })
    .await
}
