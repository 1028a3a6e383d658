//! Folds the change log into exact aggregates and publishes each version of them.

use clap::Parser;
use service_kit::command::{Command, healthcheck};
use stats_notifier::settings::{LAYERS, Settings};
use stats_notifier::startup::Application;

/// Folds the change log into exact aggregates and publishes each version of them.
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
            let shutdown = service_kit::shutdown::on_signal()?;
            Application::build(settings, shutdown)?.run_until_stopped().await?;
        }
        Command::Healthcheck => healthcheck(&Settings::load()?.internal).await?,
        Command::PrintSettings => service_kit::command::print_settings(&LAYERS)?,
    }
    Ok(())
}
