//! Folds the change log into exact aggregates and publishes each version of them.

use std::process::ExitCode;

use clap::Parser;
use service_kit::command::{Command as Common, healthcheck, print_settings};
use stats_notifier::commands;
use stats_notifier::settings::{DEFAULTS, Settings};
use stats_notifier::startup::Application;

/// Folds the change log into exact aggregates and publishes each version of them.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Common(Common),
    /// Counts all events anew, and takes the lead for that long. Writers go on; viewers keep their numbers, as stale.
    Rebuild {
        /// Prints what was done as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compares all counts with the events, and changes nothing. Exits 0 where they are equal, 1 where one is wrong, 2
    /// where it could not be told.
    Verify {
        /// Prints what was found as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let settings = || Settings::load();
    match Arguments::parse().command.unwrap_or(Command::Common(Common::Run)) {
        Command::Common(Common::Run) => run(settings()?).await?,
        Command::Common(Common::Healthcheck) => healthcheck(&settings()?.internal).await?,
        Command::Common(Common::PrintSettings) => print_settings(&DEFAULTS)?,
        Command::Rebuild { json } => return commands::rebuild(&settings()?, json).await,
        Command::Verify { json } => return commands::verify(&settings()?, json).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    service_kit::telemetry::start(&settings.log)?;
    let shutdown = service_kit::shutdown::on_signal()?;
    Ok(Application::build(settings, shutdown)?.run_until_stopped().await?)
}
