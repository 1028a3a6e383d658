//! Builds the programs of the workspace.
//!
//! Invariant: every command selects the whole workspace, and at most names the programs to link. So
//! features unify in the same way everywhere, and `up` and the tests build each dependency once.

use crate::command::{cargo, step};

/// The programs that ship.
pub(crate) const SERVICES: [&str; 6] =
    ["migrate", "access", "ingest-api", "stats-notifier", "sse-gateway", "dashboard"];

/// The programs that inject faults.
const CHAOS: [&str; 6] =
    ["chaos", "soak", "ha", "upgrade", "planted-ingest-api", "planted-stats-notifier"];

/// Builds the programs that ship.
pub(crate) async fn services() -> anyhow::Result<()> {
    build("building the services", &SERVICES, &[]).await
}

/// Builds the programs that ship, as they ship.
pub(crate) async fn services_for_release() -> anyhow::Result<()> {
    build("building the services for release", &SERVICES, &["--release"]).await
}

/// Builds the programs that ship, and those that inject faults.
pub(crate) async fn services_and_chaos() -> anyhow::Result<()> {
    build("building the services and chaos", &[&SERVICES[..], &CHAOS].concat(), &[]).await
}

async fn build(name: &str, programs: &[&str], options: &[&str]) -> anyhow::Result<()> {
    let mut build = cargo(&["build", "--locked"]);
    build.args(options).args(select(programs));
    step(name, build).await
}

/// The arguments of cargo that select programs.
pub(crate) fn select<'a>(programs: &[&'a str]) -> impl Iterator<Item = &'a str> {
    programs.iter().flat_map(|program| ["--bin", *program])
}
