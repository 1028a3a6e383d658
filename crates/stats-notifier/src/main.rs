//! Counts the change log exactly, and publishes each version of the counts.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use postgres_kit::schema::VERSION;
use service_kit::command::{Command as CommonCommand, EXIT_CODES, version};
use service_kit::failure::exit_code;
use service_kit::settings::ProgramSettings;
use stats_notifier::settings::Settings;
use stats_notifier::{commands, startup};

/// Counts the change log exactly, and publishes each version of the counts.
#[derive(Debug, Parser)]
#[command(version = version(Some(VERSION)), after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Common(CommonCommand),
    /// Counts all events again, and is the leader meanwhile. Producers can write, and viewers keep
    /// their counts, marked as stale.
    Rebuild {
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compares all counts with the events, and changes nothing. Exits with 0 if they are equal,
    /// with 1 if a count is wrong, and with 2 if the verification failed.
    Verify {
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(
        run(Arguments::parse().command.unwrap_or(Command::Common(CommonCommand::Serve))).await,
    )
}

async fn run(command: Command) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    match command {
        Command::Common(command) => {
            command.execute(startup::build).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Rebuild { json } => Ok(commands::rebuild(&Settings::load()?, json).await?),
        Command::Verify { json } => Ok(commands::verify(json).await),
    }
}
