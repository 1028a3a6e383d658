//! ingest-api with a planted error, which the checks of a run must find.

use std::process::ExitCode;

use chaos::planted::{Planted, VARIABLE};
use ingest_api::settings::Settings;
use ingest_api::startup;
use service_kit::failure::exit_code;
use service_kit::settings::ProgramSettings as _;
use time::OffsetDateTime;

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(run().await)
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    let shutdown = service_kit::shutdown::on_signal()?;
    let delivery = Planted::delivery(&std::env::var(VARIABLE).unwrap_or_default());
    let application = startup::build_with(settings, OffsetDateTime::now_utc, delivery, shutdown)?;
    Ok(application.run_until_stopped().await?)
}
