//! The stack in containers, as `docker-compose.yml` describes it, and the choice between containers
//! and a native stack.
//!
//! Invariant: a Docker engine that does not answer delays a command by at most [`ENGINE_TIMEOUT`],
//! and never prevents a native stack.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::command::in_checkout;
use crate::lockfile;
use crate::settings::Settings;

/// The longest time for a Docker engine to answer.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the stack runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum With {
    /// In containers if Docker is running, natively otherwise.
    Auto,
    /// In containers, with Docker Compose.
    Compose,
    /// As processes on this machine.
    Native,
}

/// Docker Compose with a running engine.
pub(crate) struct Compose(());

/// Chooses where to start, and prints a choice that was not the user's. `None` is native.
pub(crate) async fn choose(with: With) -> anyhow::Result<Option<Compose>> {
    match with {
        With::Native => Ok(None),
        With::Compose => Compose::find().await.map(Some),
        With::Auto => match Compose::find().await {
            Ok(compose) => {
                println!(
                    "== starting in containers, because Docker is running (or use --with native)"
                );
                Ok(Some(compose))
            }
            Err(error) => {
                println!(
                    "== starting on this machine ({error:#}); --with compose requires containers"
                );
                Ok(None)
            }
        },
    }
}

/// Compose if it was requested, or if the command applies to both and Docker is running.
pub(crate) async fn reachable(with: With) -> anyhow::Result<Option<Compose>> {
    match with {
        With::Native => Ok(None),
        With::Compose => Compose::find().await.map(Some),
        With::Auto => Ok(Compose::find().await.ok()),
    }
}

/// Compose if it was requested, or if it has containers of this stack, running or not.
pub(crate) async fn in_use(with: With) -> anyhow::Result<Option<Compose>> {
    let Some(compose) = reachable(with).await? else { return Ok(None) };
    let in_use = with == With::Compose || compose.lists(&["ps", "--all", "--quiet"]).await?;
    Ok(in_use.then_some(compose))
}

impl Compose {
    /// # Errors
    /// No engine answers, or the client has no Compose.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        query(&["info", "--format", "{{.ServerVersion}}"])
            .await
            .context("no Docker engine answers")?;
        query(&["compose", "version"]).await.context("there is no Docker Compose")?;
        Ok(Self(()))
    }

    /// Replaces this process with `docker compose up`, which then handles the terminal and Ctrl-C.
    ///
    /// # Errors
    /// A stack runs on this machine, or Compose cannot be run.
    pub(crate) fn up(&self, detach: bool) -> anyhow::Result<()> {
        let folder = Settings::load()?.folder;
        if lockfile::is_running(&folder)? {
            bail!(
                "a stack runs on this machine, with its data in {}: stop it with `cargo xtask down` first",
                folder.display()
            );
        }
        let arguments: &[&str] =
            if detach { &["up", "--build", "--wait"] } else { &["up", "--build"] };
        let error = std::os::unix::process::CommandExt::exec(compose(arguments).as_std_mut());
        Err(error).context("running `docker compose up`")
    }

    /// Stops and removes the containers, and keeps their data.
    pub(crate) async fn down(&self) -> anyhow::Result<()> {
        self.run(&["down"]).await
    }

    /// Fails if containers are running.
    pub(crate) async fn check_stopped(&self) -> anyhow::Result<()> {
        if self.lists(&["ps", "--quiet"]).await? {
            bail!(
                "the stack runs in containers: stop it with `cargo xtask down --with compose` first"
            );
        }
        Ok(())
    }

    /// Deletes the data, and stopped containers.
    pub(crate) async fn reset(&self) -> anyhow::Result<()> {
        self.run(&["down", "--volumes"]).await
    }

    /// Prints the containers.
    pub(crate) async fn status(&self, as_json: bool) -> anyhow::Result<()> {
        let format = if as_json { "json" } else { "table" };
        self.run(&["ps", "--all", "--format", format]).await
    }

    async fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let failed = || format!("`docker compose {}` failed", arguments.join(" "));
        let status = compose(arguments).status().await.with_context(failed)?;
        if !status.success() {
            bail!("{}; see above", failed());
        }
        Ok(())
    }

    /// Whether a listing command lists anything.
    async fn lists(&self, arguments: &[&str]) -> anyhow::Result<bool> {
        let output = compose(arguments).stderr(Stdio::inherit()).output().await;
        let failed = || format!("`docker compose {}` failed", arguments.join(" "));
        let output = output.with_context(failed)?;
        if !output.status.success() {
            bail!("{}; see above", failed());
        }
        Ok(!output.stdout.trim_ascii().is_empty())
    }
}

/// `docker compose` in the folder of its file.
fn compose(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("compose").args(arguments).kill_on_drop(true);
    command.current_dir(in_checkout(""));
    command
}

/// Runs a command that changes nothing.
async fn query(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let name = || format!("`docker {}`", arguments.join(" "));
    let Ok(output) = tokio::time::timeout(ENGINE_TIMEOUT, command.output()).await else {
        bail!("{} has not answered for {} s", name(), ENGINE_TIMEOUT.as_secs());
    };
    let output = output.with_context(|| format!("{} cannot be run", name()))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", name(), message.lines().next().unwrap_or("it failed without a message"));
    }
    Ok(())
}
