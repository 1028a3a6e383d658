//! Runs the programs that the commands consist of, and knows the folders of the checkout.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail};
use tokio::process::Command;

/// A file or folder of the checkout.
pub(crate) fn in_checkout(path: &str) -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    checkout.join(path)
}

/// The folder that cargo builds into. Tools and the address of the test database are there too, so
/// `cargo clean` removes all of it.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    let programs = local_stack::stack::built_programs()?;
    Ok(programs.parent().unwrap_or(&programs).to_owned())
}

/// The cargo that runs this program, in the checkout.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(in_checkout("")).kill_on_drop(true);
    // What `cargo run` sets for this program. Some build scripts would run again because of it, and
    // then everything that depends on them is built anew, each time that a user changes between
    // `cargo xtask` and `cargo`.
    let is_of_package =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_package))
    {
        command.env_remove(name);
    }
    command
}

/// Prints a name, runs a command that must succeed, and prints how long it took.
pub(crate) async fn step(name: &str, mut command: Command) -> anyhow::Result<()> {
    println!("== {name}");
    let started = Instant::now();
    let status = command.status().await.with_context(|| format!("{name} could not be run"))?;
    if !status.success() {
        bail!("{name} failed; see above");
    }
    println!("== {name}: done in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Whether a command can be run, and succeeds; its output is dropped.
pub(crate) async fn succeeds(mut command: Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// Whether this is continuous integration, in which a check that cannot run is an error.
pub(crate) fn is_continuous_integration() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}
