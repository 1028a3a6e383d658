//! `cargo xtask status`, `down` and `reset`, for the native stack and the one in containers.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use crate::compose::{self, With};
use crate::lockfile::{self, FolderLock, StackDescription};
use crate::settings::Settings;

/// The longest time for a service to answer the readiness check.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// Prints what runs, as a table or as JSON.
pub(crate) async fn status(with: With, as_json: bool) -> anyhow::Result<()> {
    let settings = Settings::load()?;
    let runs = with != With::Compose && lockfile::is_running(&settings.folder)?;
    if !runs && let Some(compose) = compose::in_use(with).await? {
        return compose.status(as_json).await;
    }
    let running = if runs { StackDescription::read(&settings.folder)? } else { None };
    let Some(running) = running else {
        if as_json {
            println!("{:#}", json!({ "running": false, "data_folder": settings.folder }));
        } else {
            println!(
                "nothing runs with its data in {}: `cargo xtask up` starts it",
                settings.folder.display()
            );
        }
        return Ok(());
    };
    let urls = [
        ("stats-notifier", &running.urls.stats_notifier, &running.urls.stats_notifier),
        ("ingest-api", &running.urls.ingest_api, &running.urls.ingest_api_internal),
        ("sse-gateway", &running.urls.sse_gateway, &running.urls.sse_gateway_internal),
        ("dashboard", &running.urls.dashboard, &running.urls.dashboard_internal),
    ];
    let mut services = Vec::new();
    // The dashboard does not run if its page could not be built.
    let runs = |name: &str| running.processes.iter().any(|process| process.name == name);
    for (name, url, internal) in urls.into_iter().filter(|(name, ..)| !running.ready || runs(name))
    {
        services.push((name, url, running.ready && is_ready(internal).await));
    }
    if as_json {
        let mut text = serde_json::to_value(&running)?;
        text["running"] = json!(true);
        text["ready"] = json!(services.iter().all(|(.., ready)| *ready));
        println!("{text:#}");
        return Ok(());
    }
    println!("{:<14}   {}", "data", running.data_folder.display());
    println!("{:<14}   {}", "postgres", running.urls.postgres);
    for (name, url, ready) in services {
        println!("{name:<14}   {url}   {}", if ready { "ready" } else { "not ready" });
    }
    Ok(())
}

async fn is_ready(url: &str) -> bool {
    let request = reqwest::Client::new().get(format!("{url}/readyz")).timeout(READY_TIMEOUT);
    request.send().await.is_ok_and(|response| response.status().is_success())
}

/// Stops what runs, and keeps the data.
pub(crate) async fn down(with: With) -> anyhow::Result<()> {
    let settings = Settings::load()?;
    let compose = compose::in_use(with).await?;
    if let Some(compose) = &compose {
        compose.down().await?;
        if with == With::Compose {
            return Ok(());
        }
    }
    let stopped = lockfile::stop(&settings.folder)?;
    if !stopped.is_empty() {
        println!("stopped {}; the data stay in {}", stopped.join(", "), settings.folder.display());
    } else if compose.is_none() {
        println!("nothing runs with its data in {}", settings.folder.display());
    }
    Ok(())
}

/// Deletes the data of a stack, which must not run.
pub(crate) async fn reset(with: With) -> anyhow::Result<()> {
    let settings = Settings::load()?;
    let compose = compose::reachable(with).await?;
    // Both are checked before either is deleted.
    if let Some(compose) = &compose {
        compose.check_stopped().await?;
    }
    if with != With::Compose {
        reset_folder(&settings)?;
    }
    if let Some(compose) = &compose {
        compose.reset().await?;
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
    folder.clear()
}
