//! Builds the programs of the workspace.
//!
//! Invariant: every command selects the whole workspace, and at most names the programs to link. So
//! features unify in the same way everywhere, and `up` and the tests build each dependency once.

use crate::command::{cargo, step};

/// The programs that ship.
const SERVICES: [&str; 5] = ["migrate", "ingest-api", "stats-notifier", "sse-gateway", "dashboard"];

/// The programs that inject faults.
const CHAOS: [&str; 3] = ["chaos", "soak", "planted-stats-notifier"];

/// Builds the programs that ship.
///
/// # Errors
/// They do not compile.
pub(crate) async fn services() -> anyhow::Result<()> {
    programs("building the services", &SERVICES).await
}

/// Builds the programs that ship, and those that inject faults.
///
/// # Errors
/// They do not compile.
pub(crate) async fn services_and_chaos() -> anyhow::Result<()> {
    let all: Vec<&str> = SERVICES.into_iter().chain(CHAOS).collect();
    programs("building the services and chaos", &all).await
}

/// The arguments with which cargo builds the services for release.
pub(crate) fn release_arguments() -> Vec<&'static str> {
    let mut arguments = vec!["build", "--locked", "--release"];
    arguments.extend(SERVICES.iter().flat_map(|program| ["--bin", program]));
    arguments
}

async fn programs(name: &str, programs: &[&str]) -> anyhow::Result<()> {
    let mut build = cargo(&["build", "--locked"]);
    for program in programs {
        build.args(["--bin", program]);
    }
    step(name, build).await
}
