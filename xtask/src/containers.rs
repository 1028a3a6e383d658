//! `cargo xtask containers`: whether the files of the containers are valid, and whether the stack
//! works in containers.
//!
//! Invariant: without a Docker engine, the second part is reported as not run, and never as passed.

mod trial;

use crate::command::step;
use crate::compose;
use crate::install::Installer;
use crate::python::CONTAINERS;

/// The files of Compose, in the order of the command that uses both.
const COMPOSE_FILES: [&str; 2] = ["docker-compose.yml", "docker-compose.observability.yml"];

/// Whether the stack ran in containers.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It did, and passed.
    Passed,
    /// It did not, for this reason.
    NotRun(String),
}

/// Checks the files, then runs the stack if it can.
pub(crate) async fn run(installer: Installer) -> anyhow::Result<Outcome> {
    let hadolint = CONTAINERS.command("hadolint", &["deploy/Dockerfile"], installer)?;
    step("containers: the Dockerfile", hadolint).await?;
    // The schema of the Compose specification, as this package has it.
    let mut schema = CONTAINERS.command(
        "check-jsonschema",
        &["--builtin-schema=vendor.compose-spec"],
        installer,
    )?;
    schema.args(COMPOSE_FILES);
    step("containers: the files of Compose", schema).await?;
    if let Err(error) = compose::check_engine().await {
        let why = format!("{error:#}");
        println!("== Compose: not run, because {why}");
        return Ok(Outcome::NotRun(why));
    }
    trial::run().await?;
    Ok(Outcome::Passed)
}
