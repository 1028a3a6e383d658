//! Relays the statistics to any number of clients by server-sent events.

use sse_gateway::settings::Settings;
use sse_gateway::startup::Application;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    let shutdown = service_kit::shutdown::on_signal()?;
    let application = Application::build(&settings, shutdown)?;
    Ok(application.run_until_stopped().await?)
}
