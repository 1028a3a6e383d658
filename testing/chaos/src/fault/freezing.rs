//! Services that stop in the midst of whatever they do, and go on later.

use std::time::Duration;

use anyhow::bail;
use local_stack::stack::Instance;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::database::{HOLD, LET_GO};
use crate::fault::{EFFECT, Effect, Inflicted, Violation, for_a_while, until_in_flight};
use crate::system::System;
use crate::wait::until;
use crate::writers::World;

/// Within which a frozen leader must have been replaced.
const TAKEOVER: Duration = Duration::from_secs(15);

pub(super) async fn freeze(
    system: &mut System,
    world: &World,
    instance: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let frozen = system.stack.freeze(instance).await?;
    let url = format!("{}/livez", system.stack.internal_url(instance));
    let patience = Duration::from_millis(300);
    let silent = reqwest::Client::new().get(url).timeout(patience).send().await.is_err();
    for_a_while(random, 0..3_000).await;
    frozen.thaw();
    Ok(silent.then(|| format!("{instance} did not answer").into()))
}

pub(super) async fn freeze_leader(
    system: &mut System,
    world: &World,
    leader: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let frozen = system.stack.freeze(leader).await?;
    let replaced = until_replaced(system, leader).await;
    for_a_while(random, 0..1_500).await;
    frozen.thaw();
    replaced
}

/// A frozen leader that is not replaced is what must not be. Without an effect where it had lost the lead before it froze,
/// and its successor has published already.
async fn until_replaced(system: &System, leader: Instance) -> anyhow::Result<Effect> {
    if system.newest_leader() != Some(leader) {
        return Ok(None);
    }
    let frozen = Instant::now();
    let other = async || Ok((system.newest_leader() != Some(leader)).then_some(()));
    if until(TAKEOVER, other).await?.is_none() {
        let seconds = TAKEOVER.as_secs();
        bail!(Violation(format!("{leader} was frozen as the leader, and not replaced within {seconds} s")));
    }
    let takeover = Some(frozen.elapsed());
    Ok(Some(Inflicted { takeover, ..format!("{leader} was replaced").into() }))
}

pub(super) async fn freeze_in_flush(
    system: &mut System,
    world: &World,
    leader: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    let holder = system.database.another().await?;
    let Some(backend) = system.database.leading_backend().await? else { return Ok(None) };
    until_in_flight(&world.history).await?;
    holder.execute(HOLD, &[]).await?;
    let database = &mut system.database;
    let waits = "wait_event = 'PgSleep'";
    let held = until(EFFECT, async || Ok(database.backend_is(backend, waits).await?.then_some(()))).await?;
    if held.is_none() {
        holder.execute(LET_GO, &[]).await?;
        return Ok(None);
    }
    let frozen = system.stack.freeze(leader).await?;
    holder.execute(LET_GO, &[]).await?;
    // The last write is answered; the frozen leader would commit next.
    let database = &mut system.database;
    let open = "state = 'idle in transaction'";
    let between = until(EFFECT, async || Ok(database.backend_is(backend, open).await?.then_some(()))).await?;
    let replaced = until_replaced(system, leader).await;
    for_a_while(random, 0..1_500).await;
    frozen.thaw();
    let replaced = replaced?;
    let before_its_commit = |replaced: Inflicted| {
        let what = format!("{} before its commit", replaced.what);
        Inflicted { what, ..replaced }
    };
    Ok(replaced.filter(|_| between.is_some()).map(before_its_commit))
}
