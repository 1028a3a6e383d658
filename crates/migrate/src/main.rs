//! Brings a database to the schema of this release, and ends.

use anyhow::Context;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let settings = migrate::settings::Settings::load()?;
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
