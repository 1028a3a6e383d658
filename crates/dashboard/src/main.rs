//! Serves the page that shows the live statistics.

use clap::Parser;
use dashboard::settings::{DEFAULTS, Settings};
use dashboard::startup::Application;
use service_kit::command::{Command, healthcheck, print_settings};

/// Serves the page that shows the live statistics.
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
            Application::build(&settings, shutdown)?.run_until_stopped().await?;
        }
        Command::Healthcheck => healthcheck(&Settings::load()?.internal).await?,
        Command::PrintSettings => print_settings(&DEFAULTS)?,
    }
    Ok(())
}
