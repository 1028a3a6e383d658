//! Receives events over REST and writes them to Postgres.

use std::process::ExitCode;

use clap::Parser;
use ingest_api::settings::{DEFAULTS, Settings};
use ingest_api::startup;
use service_kit::command::Command;
use service_kit::failure::exit_code;
use time::OffsetDateTime;

/// Receives events over REST and writes them to Postgres.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or_default();
    let build = |settings, shutdown| startup::build(settings, OffsetDateTime::now_utc, shutdown);
    exit_code(command.execute(&DEFAULTS, Settings::load, build).await)
}
