//! What both kinds of soak share: starting and stopping the system, and the result.

use anyhow::ensure;
use local_stack::postgres::Installation;
use local_stack::stack::Variable;

use crate::system::System;
use crate::world::TestWorld;

/// The result of a soak.
#[derive(Debug)]
pub struct SoakOutcome {
    /// What was measured, as a table.
    pub report: String,
    /// What grew or was wrong; empty after a good run.
    pub problems: Vec<String>,
}

/// Starts the system, with the rows that events refer to.
pub(super) async fn start(variables: &[Variable<'_>]) -> anyhow::Result<(System, TestWorld)> {
    let system = System::start(Installation::find()?, None, variables).await?;
    let world = TestWorld::create(&system).await?;
    Ok((system, world))
}

/// Stops the system and removes its files.
pub(super) async fn finish(system: System) -> anyhow::Result<()> {
    let logs = system.logs();
    let failed = system.stop().await;
    ensure!(
        failed.is_empty(),
        "these services did not stop without an error: {failed:?}; see {}",
        logs.display()
    );
    System::remove(&logs)
}

/// The number that a query returns.
pub(super) async fn number(system: &mut System, query: &str) -> anyhow::Result<i64> {
    Ok(system.database.client().await?.query_one(query, &[]).await?.get(0))
}
