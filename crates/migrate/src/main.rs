//! Migrates a database to the schema of this release, and exits.

use std::error::Error;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use migrate::settings::Settings;
use postgres_kit::schema::VERSION;
use service_kit::command::{EXIT_CODES, print_settings, version};
use service_kit::failure::exit_code;
use service_kit::settings::ProgramSettings;

/// Migrates a database to the schema of this release, and exits.
#[derive(Debug, Parser)]
#[command(version = version(Some(VERSION)), after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, Default, clap::Subcommand)]
enum Command {
    /// Migrates the database. This is the default.
    #[default]
    Run,
    /// Waits until the database has the schema of this release, and changes nothing. For containers
    /// in front of a service, as the role of the service.
    Wait,
    /// Prints the settings in effect and the origin of each. Passwords are redacted.
    PrintSettings,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit_code(execute(Arguments::parse().command.unwrap_or_default()).await)
}

async fn execute(command: Command) -> Result<(), Box<dyn Error + Send + Sync>> {
    match command {
        Command::Run => Ok(run().await?),
        Command::Wait => Ok(wait().await?),
        Command::PrintSettings => print_settings::<Settings>(),
    }
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    let name = &settings.database.name;
    let migration = migrate::migrate(&settings.database, &settings.roles)
        .await
        .with_context(|| format!("the database {name} was not migrated"))?;
    for gap in &migration.gaps {
        tracing::warn!(database.name = name, "{gap}; docs/security.md says more");
    }
    tracing::info!(
        database.name = name,
        database.created = migration.created,
        schema.version = migration.version,
        schema.applied = migration.applied.len(),
        "the schema is up to date"
    );
    Ok(())
}

async fn wait() -> anyhow::Result<()> {
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    Ok(migrate::wait(&settings.database).await?)
}
