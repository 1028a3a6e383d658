//! The stack in containers, as `docker-compose.yml` describes it, and whether to run it so.
//!
//! Invariant: a Docker engine that does not answer is waited for no longer than [`PATIENCE`], and never in the way of
//! a stack of this machine.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::running;
use crate::settings::Settings;

/// How long an engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the stack runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum With {
    /// In containers where a Docker engine answers, else on this machine.
    Auto,
    /// In containers, by Docker Compose.
    Compose,
    /// On this machine.
    Native,
}

/// Docker Compose, with an engine that answers.
pub(crate) struct Compose(());

/// Decides where to start, and says so where there was a choice. `None` is this machine.
pub(crate) async fn choose(with: With) -> anyhow::Result<Option<Compose>> {
    match with {
        With::Native => Ok(None),
        With::Compose => Compose::find().await.map(Some),
        With::Auto => match Compose::find().await {
            Ok(compose) => {
                println!(
                    "== starting in containers, for a Docker engine answers; --with native does without"
                );
                Ok(Some(compose))
            }
            Err(error) => {
                println!("== starting on this machine ({error:#}); --with compose insists on containers");
                Ok(None)
            }
        },
    }
}

/// Compose, where it is asked for, or can be used by a command that is for whatever there is.
pub(crate) async fn reachable(with: With) -> anyhow::Result<Option<Compose>> {
    match with {
        With::Native => Ok(None),
        With::Compose => Compose::find().await.map(Some),
        With::Auto => Ok(Compose::find().await.ok()),
    }
}

/// Compose, where it is asked for, or has containers of this stack, running or not.
pub(crate) async fn in_use(with: With) -> anyhow::Result<Option<Compose>> {
    let Some(compose) = reachable(with).await? else { return Ok(None) };
    let in_use = with == With::Compose || compose.lists(&["ps", "--all", "--quiet"]).await?;
    Ok(in_use.then_some(compose))
}

impl Compose {
    /// Compose of this machine.
    ///
    /// # Errors
    /// No engine answers, or the client has no Compose.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        ask(&["info", "--format", "{{.ServerVersion}}"]).await.context("no Docker engine answers")?;
        ask(&["compose", "version"]).await.context("there is no Docker Compose")?;
        Ok(Self(()))
    }

    /// Becomes `docker compose up`: what follows, a Ctrl-C included, is between it and the terminal.
    ///
    /// # Errors
    /// A stack runs on this machine, or Compose cannot be run.
    pub(crate) fn up(&self, detach: bool) -> anyhow::Result<()> {
        let folder = Settings::load()?.folder;
        if running::is_running(&folder)? {
            bail!(
                "a stack runs on this machine, with its data in {}: stop it with `cargo xtask down` first",
                folder.display()
            );
        }
        let arguments: &[&str] = if detach { &["up", "--build", "--wait"] } else { &["up", "--build"] };
        let error = std::os::unix::process::CommandExt::exec(compose(arguments).as_std_mut());
        Err(error).context("running `docker compose up`")
    }

    /// Stops and removes the containers; their data stay.
    pub(crate) async fn down(&self) -> anyhow::Result<()> {
        self.run(&["down"]).await
    }

    /// Refuses containers that run.
    pub(crate) async fn check_stopped(&self) -> anyhow::Result<()> {
        if self.lists(&["ps", "--quiet"]).await? {
            bail!("the stack runs in containers: stop it with `cargo xtask down --with compose` first");
        }
        Ok(())
    }

    /// Deletes the data, and containers that have stopped.
    pub(crate) async fn reset(&self) -> anyhow::Result<()> {
        self.run(&["down", "--volumes"]).await
    }

    /// Shows the containers.
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

    /// Whether a command that lists something lists anything.
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

/// `docker compose`, where its file is.
fn compose(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("compose").args(arguments).kill_on_drop(true);
    if let Some(checkout) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() {
        command.current_dir(checkout);
    }
    command
}

/// Runs a command that only asks.
async fn ask(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let asked = || format!("`docker {}`", arguments.join(" "));
    let Ok(output) = tokio::time::timeout(PATIENCE, command.output()).await else {
        bail!("{} has said nothing for {} s", asked(), PATIENCE.as_secs());
    };
    let output = output.with_context(|| format!("{} cannot be run", asked()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", asked(), said.lines().next().unwrap_or("it failed without a word"));
    }
    Ok(())
}
