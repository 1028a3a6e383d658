//! `cargo xtask status`, `down` and `reset`, for the native stack and the one in containers.

use std::time::Duration;

use anyhow::{Context, bail};
use local_stack::stack::ServiceKind;
use serde_json::json;
use service_kit::client;

use crate::compose::{self, Backend};
use crate::lockfile::{self, FolderLock, StackDescription};
use crate::secrets::SecretFolder;
use crate::settings::Settings;

/// The longest time for a service to answer the readiness check.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// Prints what runs, as a table or as JSON.
pub(crate) async fn status(with: Backend, as_json: bool) -> anyhow::Result<()> {
    let folder = Settings::load()?.folder;
    let runs = with != Backend::Compose && lockfile::is_running(&folder)?;
    if !runs && compose::is_used(with).await? {
        let format = if as_json { "json" } else { "table" };
        return compose::run(&["ps", "--all", "--format", format]).await;
    }
    let running = if runs { StackDescription::read(&folder)? } else { None };
    let Some(running) = running else {
        if as_json {
            println!("{:#}", json!({ "running": false, "data_folder": folder }));
        } else {
            println!(
                "nothing runs with its data in {}: `cargo xtask up` starts it",
                folder.display()
            );
        }
        return Ok(());
    };
    let mut services = Vec::new();
    // The dashboard does not run if its page could not be built.
    let runs = |name: &str| running.processes.iter().any(|process| process.name == name);
    for service in ServiceKind::ALL {
        if !running.ready || runs(service.name()) {
            let is_ready = running.ready && is_ready(&running.internal_url(service)).await;
            services.push((service, is_ready));
        }
    }
    if as_json {
        let mut text = serde_json::to_value(&running)?;
        text["running"] = json!(true);
        text["ready"] = json!(services.iter().all(|(_, is_ready)| *is_ready));
        println!("{text:#}");
        return Ok(());
    }
    println!("{:<14}   {}", "data", running.data_folder.display());
    println!("{:<14}   {}", "postgres", running.urls.postgres);
    for (service, is_ready) in services {
        let ready = if is_ready { "ready" } else { "not ready" };
        println!("{service:<14}   {}   {ready}", running.url(service));
    }
    Ok(())
}

async fn is_ready(url: &str) -> bool {
    let Ok(client) = client::internal().timeout(READY_TIMEOUT).build() else { return false };
    client
        .get(format!("{url}/readyz"))
        .send()
        .await
        .is_ok_and(|response| response.status().is_success())
}

/// Stops what runs, and keeps the data.
pub(crate) async fn down(with: Backend) -> anyhow::Result<()> {
    let folder = Settings::load()?.folder;
    let in_containers = compose::is_used(with).await?;
    if in_containers {
        compose::run(&["down"]).await?;
    }
    if with == Backend::Compose {
        return Ok(());
    }
    let stopped = lockfile::stop(&folder)?;
    if !stopped.is_empty() {
        println!("stopped {}; the data stay in {}", stopped.join(", "), folder.display());
    } else if !in_containers {
        println!("nothing runs with its data in {}", folder.display());
    }
    Ok(())
}

/// Deletes the data of a stack, which must not run.
pub(crate) async fn reset(with: Backend) -> anyhow::Result<()> {
    let settings = Settings::load()?;
    let has_containers = compose::is_reachable(with).await?;
    // Both are checked before either is deleted.
    if has_containers && compose::lists(&["ps", "--quiet"]).await? {
        bail!("the stack runs in containers: stop it with `cargo xtask down --with compose` first");
    }
    if with != Backend::Compose {
        reset_folder(&settings)?;
    }
    if has_containers {
        compose::run(&["down", "--volumes"]).await?;
    }
    Ok(())
}

fn reset_folder(settings: &Settings) -> anyhow::Result<()> {
    let folder = FolderLock::lock(&settings.folder)?;
    let (postgres, _) = settings.postgres_folder();
    if postgres.exists() {
        // The setting may name a folder with other data by mistake.
        if !postgres.join("data/PG_VERSION").exists() {
            bail!("{} has no Postgres of Newcycle: delete it yourself", postgres.display());
        }
        std::fs::remove_dir_all(&postgres)
            .with_context(|| format!("deleting {}", postgres.display()))?;
        println!("deleted {}; `cargo xtask up` starts with an empty database", postgres.display());
    } else {
        println!("there are no data in {}", postgres.display());
    }
    SecretFolder::of(&settings.folder).delete()?;
    folder.clear()
}
