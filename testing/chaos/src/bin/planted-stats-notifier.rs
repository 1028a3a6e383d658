//! stats-notifier with a planted error, which the checks of a run must find.

use std::process::ExitCode;

use chaos::planted::{Planted, VARIABLE};
use service_kit::failure::exit_code;
use service_kit::settings::ProgramSettings as _;
use stats_notifier::settings::Settings;
use stats_notifier::startup;

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(run().await)
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    let shutdown = service_kit::shutdown::on_signal()?;
    let statements = Planted::statements(&std::env::var(VARIABLE).unwrap_or_default())?;
    Ok(startup::build_with(settings, shutdown, statements)?.run_until_stopped().await?)
}
