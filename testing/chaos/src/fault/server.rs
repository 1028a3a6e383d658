//! Postgres, its sessions and its disk.

use anyhow::Context;
use local_stack::postgres::Stop;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::fault::{EFFECT, Effect, for_a_while, until_in_flight};
use crate::history::{Fate, Table};
use crate::system::{PATIENCE, System};
use crate::wait::until;
use crate::writers::World;

pub(super) async fn terminate_backend(
    system: &mut System,
    world: &World,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    let others = "SELECT pid, coalesce(application_name, ''), usename::text FROM pg_stat_activity \
         WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let rows = system.database.client().await?.query(others, &[]).await?;
    let Some(row) = rows.choose(random) else { return Ok(None) };
    let (pid, application, user): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    until_in_flight(&world.history).await?;
    // Waits until it has ended, at most so many milliseconds.
    let ended = "SELECT pg_terminate_backend($1, 5000)";
    let ended: bool = system.database.client().await?.query_one(ended, &[&pid]).await?.get(0);
    Ok(ended.then(|| format!("a session of {user} ended ({application})").into()))
}

pub(super) async fn restart_postgres(
    system: &mut System,
    world: &World,
    way: Stop,
) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let in_flight = world.history.in_flight();
    system.stop_postgres(way);
    system.start_postgres()?;
    Ok(Some(format!("{in_flight} writes were on their way").into()))
}

/// Until a write fails, and for a while; Postgres may end of it.
pub(super) async fn fill_disk(
    system: &mut System,
    world: &World,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let disk = system.disk.as_ref().context("there is no disk")?;
    disk.fill()?;
    let failed = until(EFFECT, async || {
        // A row of its own for each attempt, until there is no room for one.
        let id = uuid::Uuid::now_v7();
        world.history.note(Table::Items, [id], Fate::Unknown);
        let insert = format!("INSERT INTO items VALUES ('{id}', '{}', now())", world.parents.base_item);
        let client = match system.database.client().await {
            Ok(client) => client,
            Err(error) => return Ok(Some(format!("Postgres went away: {error:#}"))),
        };
        Ok(match client.batch_execute(&insert).await {
            Ok(()) => {
                world.history.note(Table::Items, [id], Fate::Stored);
                None
            }
            Err(error) => Some(error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)),
        })
    })
    .await;
    for_a_while(random, 0..1_500).await;
    system.disk.as_ref().context("there is no disk")?.empty()?;
    // It may be about to end, for it could not start anew after a crash.
    let answers = until(PATIENCE, async || {
        if !system.postgres_runs() {
            system.start_postgres()?;
        }
        Ok(system.database.client().await.is_ok().then_some(()))
    });
    answers.await?.context("Postgres did not come back once its disk had room")?;
    Ok(failed?.map(|failed| format!("a write failed: {failed}").into()))
}
