//! stats-notifier with a planted error, which the checks of a run must find.

use chaos::planted::{Planted, VARIABLE};
use stats_notifier::settings::Settings;
use stats_notifier::startup;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    let shutdown = service_kit::shutdown::on_signal()?;
    let statements = Planted::statements(&std::env::var(VARIABLE).unwrap_or_default())?;
    Ok(startup::build_with(settings, shutdown, statements)?.run_until_stopped().await?)
}
