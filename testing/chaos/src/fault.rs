//! The faults. Each is injected, seen to have an effect, and lifted again.

mod effect;
mod environment;
mod freezing;
mod server;

use std::time::Duration;

use anyhow::ensure;
use local_stack::link::LinkMode;
use local_stack::postgres::StopMode;
use local_stack::stack::{Instance, ServiceKind};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::clock::Clocks;
use crate::fault_kind::FaultKind;
use crate::system::{SERVICE_TIMEOUT, System};
use crate::wait::until;
use crate::world::TestWorld;

use self::effect::{EFFECT_TIMEOUT, until_in_flight};
pub(crate) use self::effect::{FaultEffect, Violation};
use self::environment::{
    BackgroundFault, disturb_link, fill_clients, fill_uploads, slow_pages, step_clock,
};
use self::freezing::{freeze, freeze_in_flush, freeze_leader};
use self::server::{backfill, fill_disk, restart_postgres, terminate_backend};

/// Why a kind of fault cannot be injected on this machine.
pub(crate) fn unavailable(kind: FaultKind, system: &System) -> Option<&'static str> {
    match kind {
        FaultKind::FillDisk if system.disk.is_none() => Some("mounting a small disk needs root"),
        FaultKind::StepClock if system.clocks.is_none() => Some("libfaketime is not installed"),
        _ => None,
    }
}

/// Injects a fault while writes are in progress, and lifts it. With `in_background`, a link has a
/// fault at the same time. Returns `None` if the fault had no effect.
///
/// # Errors
/// [`Violation`], or something failed that no fault can explain.
pub(crate) async fn inject(
    kind: FaultKind,
    in_background: bool,
    system: &mut System,
    world: &TestWorld,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    let instance = target(kind, system, random).await?;
    let background =
        if in_background { Some(BackgroundFault::begin(system, random)?) } else { None };
    let effect = inject_alone(kind, instance, system, world, random).await?;
    let meanwhile = match background {
        Some(background) => background.end().await?,
        None => None,
    };
    Ok(effect.map(|effect| FaultEffect { meanwhile, ..effect }))
}

/// The instance that a fault affects. It responds to requests; an instance that is still starting
/// has nothing to lose.
async fn target(kind: FaultKind, system: &System, random: &mut StdRng) -> anyhow::Result<Instance> {
    let number = random.random_range(1..=2);
    let leading = match kind {
        FaultKind::FreezeNotifier | FaultKind::FreezeInFlush => true,
        // Mostly the leader, because the standby only waits.
        FaultKind::KillNotifier | FaultKind::TermNotifier => random.random_bool(0.7),
        _ => false,
    };
    let instance = match kind {
        _ if leading => system.leader().await.map_err(|error| Violation(error.to_string()))?,
        FaultKind::KillIngest
        | FaultKind::TermIngest
        | FaultKind::FreezeIngest
        | FaultKind::FillUploads => ServiceKind::IngestApi.replica(number),
        FaultKind::KillGateway
        | FaultKind::TermGateway
        | FaultKind::FreezeGateway
        | FaultKind::SlowPages
        | FaultKind::FillClients => ServiceKind::SseGateway.replica(number),
        FaultKind::StepClock => {
            let services =
                [ServiceKind::IngestApi, ServiceKind::StatsNotifier, ServiceKind::SseGateway];
            services[random.random_range(0..services.len())].replica(number)
        }
        FaultKind::KillNotifier | FaultKind::TermNotifier => {
            ServiceKind::StatsNotifier.replica(number)
        }
        // These affect no instance.
        _ => return Ok(ServiceKind::StatsNotifier.replica(number)),
    };
    let url = format!("{}/livez", system.stack.internal_url(instance));
    let responds = until(SERVICE_TIMEOUT, async || {
        let response = reqwest::Client::new().get(&url).timeout(EFFECT_TIMEOUT).send().await;
        Ok(response.is_ok())
    });
    ensure!(responds.await?, Violation(format!("{instance} did not start")));
    Ok(instance)
}

async fn inject_alone(
    kind: FaultKind,
    instance: Instance,
    system: &mut System,
    world: &TestWorld,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    // These two have preparations, and wait for a write after them.
    if !matches!(kind, FaultKind::FreezeInFlush | FaultKind::TerminateBackend) {
        until_in_flight(&world.history).await?;
    }
    match kind {
        FaultKind::KillIngest | FaultKind::KillNotifier | FaultKind::KillGateway => {
            let process = system.stack.process_ids().find(|(of, _)| *of == instance);
            system.stack.kill(instance).await;
            if let Some((_, process_id)) = process {
                Clocks::forget(process_id);
            }
            system.stack.start_one(instance)?;
            Ok(Some(format!("{instance} was killed").into()))
        }
        FaultKind::TermIngest | FaultKind::TermNotifier | FaultKind::TermGateway => {
            let ended_well = system.stack.restart(instance, SERVICE_TIMEOUT).await?;
            ensure!(
                ended_well,
                Violation(format!("{instance} did not stop without an error on SIGTERM"))
            );
            Ok(Some(format!("{instance} stopped").into()))
        }
        FaultKind::FreezeIngest | FaultKind::FreezeGateway => {
            freeze(system, instance, random).await
        }
        FaultKind::FreezeNotifier => freeze_leader(system, instance, random).await,
        FaultKind::FreezeInFlush => freeze_in_flush(system, world, instance, random).await,
        FaultKind::TerminateBackend => terminate_backend(system, world, random).await,
        FaultKind::StopPostgres => restart_postgres(system, world, StopMode::Immediate).await,
        FaultKind::KillPostgres => restart_postgres(system, world, StopMode::Kill).await,
        FaultKind::LinkCut => disturb_link(system, LinkMode::Cut, random).await,
        FaultKind::LinkStalled => disturb_link(system, LinkMode::Stalled, random).await,
        FaultKind::LinkSlow => {
            let delay = Duration::from_millis(random.random_range(20..200));
            disturb_link(system, LinkMode::Slow(delay), random).await
        }
        FaultKind::LinkReset => {
            disturb_link(system, LinkMode::Reset(random.random()), random).await
        }
        FaultKind::FillUploads => fill_uploads(system, instance).await,
        FaultKind::FillClients => fill_clients(system, instance).await,
        FaultKind::SlowPages => slow_pages(system, instance, random).await,
        FaultKind::Backfill => backfill(system, world).await,
        FaultKind::StepClock => step_clock(system, world, instance, random).await,
        FaultKind::FillDisk => fill_disk(system, world, random).await,
    }
}
