//! Takes events over REST and writes them to Postgres.

use clap::Parser;
use ingest_api::clock::Clock;
use ingest_api::settings::{DEFAULTS, Settings};
use ingest_api::startup::Application;
use service_kit::command::{Command, healthcheck};

/// Takes events over REST and writes them to Postgres.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command.unwrap_or(Command::Run) {
        Command::Run => {
            let settings = Settings::load()?;
            service_kit::telemetry::start(&settings.log)?;
            service_kit::limits::raise_open_files();
            let shutdown = service_kit::shutdown::on_signal()?;
            let application = Application::build(settings, Clock::system(), shutdown)?;
            application.run_until_stopped().await?;
        }
        Command::Healthcheck => healthcheck(&Settings::load()?.internal).await?,
        Command::PrintSettings => service_kit::command::print_settings(&DEFAULTS)?,
    }
    Ok(())
}
