//! Faults of Postgres: its sessions, its processes and its disk.

use anyhow::{Context, ensure};
use local_stack::postgres::StopMode;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use uuid::Uuid;

use super::effect::{EFFECT_TIMEOUT, FaultEffect, linger, until_in_flight};
use crate::history::{ExpectedState, Table};
use crate::system::{SERVICE_TIMEOUT, System};
use crate::wait::until;
use crate::world::TestWorld;

/// The events of a backfill: several times what one purge deletes.
const BACKFILLED: usize = 30_000;

pub(super) async fn terminate_backend(
    system: &mut System,
    world: &TestWorld,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    let others = "\
        SELECT pid, coalesce(application_name, ''), usename::text
        FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let rows = system.database.client().await?.query(others, &[]).await?;
    let Some(row) = rows.choose(random) else { return Ok(None) };
    let pid: i32 = row.get(0);
    let application: String = row.get(1);
    let user: String = row.get(2);
    until_in_flight(&world.history).await?;
    // Returns when the session has ended. The second argument is the timeout in milliseconds.
    let terminate = "SELECT pg_terminate_backend($1, 5000)";
    let ended: bool = system.database.client().await?.query_one(terminate, &[&pid]).await?.get(0);
    Ok(ended.then(|| format!("a session of {user} ended ({application})").into()))
}

/// Inserts many events of random times of ten years by one statement, as an import does.
pub(super) async fn backfill(
    system: &mut System,
    world: &TestWorld,
) -> anyhow::Result<Option<FaultEffect>> {
    let ids: Vec<Uuid> = (0..BACKFILLED).map(|_| Uuid::now_v7()).collect();
    let note = |state| ids.iter().for_each(|id| world.history.note(Table::Items, *id, state));
    note(ExpectedState::Unknown);
    let insert = "INSERT INTO items (id, base_item_id, created_at) \
         SELECT id, $1, now() - random() * interval '10 years' FROM unnest($2::uuid[]) AS id";
    let client = system.database.client().await?;
    let inserted = client.execute(insert, &[&world.parents.base_item, &ids]).await.is_ok();
    if inserted {
        note(ExpectedState::Stored);
    }
    Ok(inserted.then(|| format!("{BACKFILLED} events by one statement").into()))
}

pub(super) async fn restart_postgres(
    system: &mut System,
    world: &TestWorld,
    mode: StopMode,
) -> anyhow::Result<Option<FaultEffect>> {
    let in_flight = world.history.in_flight();
    system.stop_postgres(mode);
    system.start_postgres()?;
    Ok(Some(format!("{in_flight} writes were in progress").into()))
}

/// Fills the disk until a write fails, and for a while after that. Postgres may crash.
pub(super) async fn fill_disk(
    system: &mut System,
    world: &TestWorld,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    let disk = system.disk.as_ref().context("there is no disk")?;
    disk.fill()?;
    let mut failed = None;
    let filled = until(EFFECT_TIMEOUT, async || {
        // Inserts one row after another until there is no room for the next.
        let id = Uuid::now_v7();
        world.history.note(Table::Items, id, ExpectedState::Unknown);
        let insert =
            format!("INSERT INTO items VALUES ('{id}', '{}', now())", world.parents.base_item);
        failed = match system.database.client().await {
            Err(error) => Some(format!("Postgres could not be reached: {error:#}")),
            Ok(client) => match client.batch_execute(&insert).await {
                Ok(()) => None,
                Err(error) => {
                    Some(error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string))
                }
            },
        };
        if failed.is_none() {
            world.history.note(Table::Items, id, ExpectedState::Stored);
        }
        Ok(failed.is_some())
    })
    .await;
    linger(random, 0..1_500).await;
    system.disk.as_ref().context("there is no disk")?.make_room()?;
    // A server that crashed could not recover on a full disk, and exits.
    let answers = until(SERVICE_TIMEOUT, async || {
        if !system.postgres_runs() {
            system.start_postgres()?;
        }
        Ok(system.database.client().await.is_ok())
    });
    ensure!(answers.await?, "Postgres did not recover when its disk had free space again");
    filled?;
    Ok(failed.map(|failed| format!("a write failed: {failed}").into()))
}
