//! Services that are frozen (SIGSTOP) in the middle of their work and continue later.

use std::time::Duration;

use anyhow::ensure;
use local_stack::stack::Instance;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::effect::{EFFECT_TIMEOUT, FaultEffect, Violation, linger, until_in_flight};
use crate::database::{HOLD_FLUSHES, RELEASE_FLUSHES};
use crate::system::System;
use crate::wait::until;
use crate::world::TestWorld;

/// How long it may take until a frozen leader is replaced.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a frozen service is asked for a response, which it cannot give.
const SILENCE: Duration = Duration::from_millis(300);

pub(super) async fn freeze(
    system: &mut System,
    instance: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    let frozen = system.stack.freeze(instance).await?;
    let url = format!("{}/livez", system.stack.internal_url(instance));
    let silent = reqwest::Client::new().get(url).timeout(SILENCE).send().await.is_err();
    linger(random, 0..3_000).await;
    frozen.thaw();
    Ok(silent.then(|| format!("{instance} did not respond").into()))
}

pub(super) async fn freeze_leader(
    system: &mut System,
    leader: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    let frozen = system.stack.freeze(leader).await?;
    let replaced = until_replaced(system, leader).await;
    linger(random, 0..1_500).await;
    frozen.thaw();
    replaced
}

/// Waits until another stats-notifier publishes. If none does, that is a violation. The freeze had
/// no effect if the instance had lost the lead before it froze, and its successor has already
/// published.
async fn until_replaced(system: &System, leader: Instance) -> anyhow::Result<Option<FaultEffect>> {
    if system.newest_leader() != Some(leader) {
        return Ok(None);
    }
    let frozen = Instant::now();
    let seconds = TAKEOVER_TIMEOUT.as_secs();
    ensure!(
        until(TAKEOVER_TIMEOUT, async || Ok(system.newest_leader() != Some(leader))).await?,
        Violation(format!(
            "{leader} was frozen as the leader, and not replaced within {seconds} s"
        ))
    );
    let takeover = Some(frozen.elapsed());
    Ok(Some(FaultEffect { takeover, ..format!("{leader} was replaced").into() }))
}

pub(super) async fn freeze_in_flush(
    system: &mut System,
    world: &TestWorld,
    leader: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    let holder = system.database.open_session().await?;
    let Some(backend) = system.database.upkeep_backend().await? else { return Ok(None) };
    until_in_flight(&world.history).await?;
    holder.execute(HOLD_FLUSHES, &[]).await?;
    let database = &mut system.database;
    let waits = "wait_event = 'PgSleep'";
    if !until(EFFECT_TIMEOUT, async || database.backend_is(backend, waits).await).await? {
        holder.execute(RELEASE_FLUSHES, &[]).await?;
        return Ok(None);
    }
    let frozen = system.stack.freeze(leader).await?;
    holder.execute(RELEASE_FLUSHES, &[]).await?;
    // Postgres finishes the last write. The frozen leader would commit next.
    let open = "state = 'idle in transaction'";
    let uncommitted =
        until(EFFECT_TIMEOUT, async || database.backend_is(backend, open).await).await?;
    let replaced = until_replaced(system, leader).await;
    linger(random, 0..1_500).await;
    frozen.thaw();
    let before_its_commit = |replaced: FaultEffect| {
        let what = format!("{} before its commit", replaced.what);
        FaultEffect { what, ..replaced }
    };
    Ok(replaced?.filter(|_| uncommitted).map(before_its_commit))
}
