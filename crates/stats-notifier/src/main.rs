//! Folds the change log into exact aggregates and publishes each version of them.

use stats_notifier::settings::Settings;
use stats_notifier::startup::Application;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    let shutdown = service_kit::shutdown::on_signal()?;
    let application = Application::build(settings, shutdown)?;
    Ok(application.run_until_stopped().await?)
}
