//! Serves the page that shows the live statistics.

use std::process::ExitCode;

use clap::Parser;
use dashboard::settings::{DEFAULTS, Settings};
use dashboard::startup;
use service_kit::command::Command;
use service_kit::failure::exit_code;

/// Serves the page that shows the live statistics.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or_default();
    let build = |settings, shutdown| startup::build(&settings, shutdown);
    exit_code(command.execute(&DEFAULTS, Settings::load, build).await)
}
