//! Takes events over REST and commits them to Postgres.

use ingest_api::clock::Clock;
use ingest_api::settings::Settings;
use ingest_api::startup::Application;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    let shutdown = service_kit::shutdown::on_signal()?;
    let application = Application::build(settings, Clock::system(), shutdown)?;
    Ok(application.run_until_stopped().await?)
}
