//! Relays the statistics to any number of clients by server-sent events.

use std::process::ExitCode;

use clap::Parser;
use service_kit::command::Command;
use service_kit::failure::exit_code;
use sse_gateway::settings::{DEFAULTS, Settings};
use sse_gateway::startup;
use statistics_stream::Hub;

/// Relays the statistics to any number of clients by server-sent events.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or_default();
    let build = |settings: Settings, shutdown| {
        startup::build(&settings, Hub::new(settings.hub()), shutdown)
    };
    exit_code(command.execute(&DEFAULTS, Settings::load, build).await)
}
