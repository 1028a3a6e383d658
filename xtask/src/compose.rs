//! The stack in containers, as `docker-compose.yml` describes it, and the choice between containers
//! and a native stack.
//!
//! Invariant: a Docker engine that does not answer delays a command by at most [`ENGINE_TIMEOUT`],
//! and never prevents a native stack.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use crate::command::in_checkout;
use crate::settings::Settings;
use crate::{lockfile, up};

/// The longest time for a Docker engine to answer.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the stack runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Backend {
    /// In containers if Docker is running, natively otherwise.
    Auto,
    /// In containers, with Docker Compose.
    Compose,
    /// As processes on this machine.
    Native,
}

/// Chooses whether to start in containers. Prints a choice that was not the user's.
pub(crate) async fn choose(with: Backend) -> anyhow::Result<bool> {
    if with != Backend::Auto {
        return is_reachable(with).await;
    }
    let found = check_engine().await;
    if let Err(error) = &found {
        println!("== starting on this machine ({error:#}); --with compose requires containers");
    } else {
        println!("== starting in containers, because Docker is running (or use --with native)");
    }
    Ok(found.is_ok())
}

/// Whether containers were requested, or the command applies to both and Docker is running.
///
/// # Errors
/// They were requested, and Docker is not running.
pub(crate) async fn is_reachable(with: Backend) -> anyhow::Result<bool> {
    match with {
        Backend::Native => Ok(false),
        Backend::Compose => check_engine().await.map(|()| true),
        Backend::Auto => Ok(check_engine().await.is_ok()),
    }
}

/// Whether containers were requested, or there are some of this stack, running or not.
pub(crate) async fn is_used(with: Backend) -> anyhow::Result<bool> {
    Ok(is_reachable(with).await?
        && (with == Backend::Compose || lists(&["ps", "--all", "--quiet"]).await?))
}

/// Replaces this process with `docker compose up`, which then handles the terminal and Ctrl-C.
///
/// # Errors
/// A stack runs on this machine, or Compose cannot be run.
pub(crate) fn up(options: &up::Options) -> anyhow::Result<()> {
    ensure!(
        !options.open,
        "--open is for the native stack: `docker compose run --rm access link` prints a link"
    );
    let folder = Settings::load()?.folder;
    if lockfile::is_running(&folder)? {
        bail!(
            "a stack runs on this machine, with its data in {}: stop it with `cargo xtask down` first",
            folder.display()
        );
    }
    let arguments: &[&str] =
        if options.detach { &["up", "--build", "--wait"] } else { &["up", "--build"] };
    let error = std::os::unix::process::CommandExt::exec(compose(arguments).as_std_mut());
    Err(error).context("running `docker compose up`")
}

/// Runs `docker compose` with these arguments.
pub(crate) async fn run(arguments: &[&str]) -> anyhow::Result<()> {
    output(arguments, Stdio::inherit()).await.map(drop)
}

/// Whether a listing command lists anything.
pub(crate) async fn lists(arguments: &[&str]) -> anyhow::Result<bool> {
    Ok(!output(arguments, Stdio::piped()).await?.trim_ascii().is_empty())
}

async fn output(arguments: &[&str], stdout: Stdio) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("`docker compose {}` failed", arguments.join(" "));
    let process = compose(arguments).stdout(stdout).spawn().with_context(failed)?;
    let output = process.wait_with_output().await.with_context(failed)?;
    if !output.status.success() {
        bail!("{}; see above", failed());
    }
    Ok(output.stdout)
}

/// `docker compose` in the folder of its file.
fn compose(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("compose").args(arguments).kill_on_drop(true);
    command.current_dir(in_checkout(""));
    command
}

/// Checks that containers can be started. Returns within a few seconds, whatever the engine does.
///
/// # Errors
/// No engine answers, or the client has no Compose.
pub(crate) async fn check_engine() -> anyhow::Result<()> {
    query(&["info", "--format", "{{.ServerVersion}}"]).await.context("no Docker engine answers")?;
    query(&["compose", "version"]).await.context("there is no Docker Compose")
}

/// Runs a command that changes nothing.
async fn query(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let name = format!("`docker {}`", arguments.join(" "));
    let Ok(output) = tokio::time::timeout(ENGINE_TIMEOUT, command.output()).await else {
        bail!("{name} has not answered for {} s", ENGINE_TIMEOUT.as_secs());
    };
    let output = output.with_context(|| format!("{name} cannot be run"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}", message.lines().next().unwrap_or("it failed without a message"));
    }
    Ok(())
}
