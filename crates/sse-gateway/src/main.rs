//! Relays the statistics to any number of clients by server-sent events.

use clap::Parser;
use service_kit::command::{Command, healthcheck};
use sse_gateway::settings::{DEFAULTS, Settings};
use sse_gateway::startup::Application;

/// Relays the statistics to any number of clients by server-sent events.
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
            let files = service_kit::limits::raise_open_files();
            let clients = settings.stream.max_clients;
            if files.is_some_and(|files| usize::try_from(files).is_ok_and(|files| files <= clients)) {
                tracing::warn!(
                    limit.open_files = files,
                    stream.max_clients = clients,
                    "each client is an open file, and fewer of these are allowed than clients: raise the hard limit"
                );
            }
            let shutdown = service_kit::shutdown::on_signal()?;
            Application::build(&settings, shutdown)?.run_until_stopped().await?;
        }
        Command::Healthcheck => healthcheck(&Settings::load()?.internal).await?,
        Command::PrintSettings => service_kit::command::print_settings(&DEFAULTS)?,
    }
    Ok(())
}
