//! Brings a database to the schema of this release, and ends.

use anyhow::Context;
use clap::Parser;
use migrate::settings::{DEFAULTS, Settings};

/// Brings a database to the schema of this release, and ends.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Command {
    /// Migrates. This is what it does without a command, too.
    Run,
    /// Prints the settings in effect, and the source of each; passwords are not shown.
    PrintSettings,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    if let Some(Command::PrintSettings) = Arguments::parse().command {
        return Ok(service_kit::command::print_settings(&DEFAULTS)?);
    }
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    let name = &settings.database.name;
    let outcome = migrate::migrate(&settings.database, &settings.roles)
        .await
        .with_context(|| format!("the database {name} was not migrated"))?;
    tracing::info!(
        database.name = name,
        database.created = outcome.created,
        schema.version = outcome.version,
        schema.applied = outcome.applied.len(),
        "the schema is up to date"
    );
    Ok(())
}
