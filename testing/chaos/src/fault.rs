//! The faults: each is inflicted, seen to have an effect, and lifted again.

mod freezing;
mod server;
mod surroundings;

use std::time::Duration;

use anyhow::{Context, bail};
use local_stack::postgres::Stop;
use local_stack::stack::{Instance, Part};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::clock::Clocks;
use crate::fault::freezing::{freeze, freeze_in_flush, freeze_leader};
use crate::fault::server::{fill_disk, restart_postgres, terminate_backend};
use crate::fault::surroundings::{Companion, fill_clients, fill_uploads, step_clock, trouble};
use crate::history::History;
use crate::link::Mode;
use crate::system::{PATIENCE, System};
use crate::wait::until;
use crate::writers::World;

/// How long a fault may take to have its effect.
const EFFECT: Duration = Duration::from_secs(10);

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $name:literal,)*) => {
        /// What can be inflicted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its name, for people.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// An ingest-api is killed.
    KillIngest: "kill -9 of an ingest-api",
    /// A stats-notifier is killed, the leader or the standby.
    KillNotifier: "kill -9 of a stats-notifier",
    /// An sse-gateway is killed.
    KillGateway: "kill -9 of an sse-gateway",
    /// An ingest-api is asked to end.
    TermIngest: "SIGTERM to an ingest-api",
    /// A stats-notifier is asked to end, the leader or the standby.
    TermNotifier: "SIGTERM to a stats-notifier",
    /// An sse-gateway is asked to end.
    TermGateway: "SIGTERM to an sse-gateway",
    /// An ingest-api is stopped, and goes on later.
    FreezeIngest: "freeze of an ingest-api",
    /// The leader is stopped, replaced, and wakes.
    FreezeNotifier: "freeze of the leader",
    /// The leader is stopped after the last write of a flush and before its commit, replaced, and wakes.
    FreezeInFlush: "freeze of the leader inside a flush",
    /// An sse-gateway is stopped, and goes on later.
    FreezeGateway: "freeze of an sse-gateway",
    /// Any backend of Postgres is terminated.
    TerminateBackend: "pg_terminate_backend",
    /// Postgres is stopped in its immediate mode, and started again.
    StopPostgres: "immediate stop of Postgres",
    /// The postmaster is killed, and started again.
    KillPostgres: "kill -9 of the postmaster",
    /// A link is cut for a while.
    LinkCut: "link cut",
    /// A link passes nothing on for a while.
    LinkStalled: "link stalled",
    /// A link passes on little for a while.
    LinkSlow: "link slowed",
    /// The connections of a link are reset.
    LinkReset: "link reset",
    /// More uploads come to an ingest-api than it takes.
    FillUploads: "uploads filled",
    /// More clients come to an sse-gateway than it takes.
    FillClients: "clients filled",
    /// The clock of a service is stepped.
    StepClock: "clock stepped",
    /// Postgres's disk is full.
    FillDisk: "disk full",
}

impl Kind {
    /// Why it cannot be inflicted here, if so.
    #[must_use]
    pub fn missing(self, system: &System) -> Option<&'static str> {
        match self {
            Self::FillDisk if system.disk.is_none() => Some("mounting a small disk needs root"),
            Self::StepClock if system.clocks.is_none() => Some("libfaketime is not installed"),
            _ => None,
        }
    }
}

/// What a fault did; nothing where it had no effect.
pub type Effect = Option<Inflicted>;

/// A fault that had an effect.
#[derive(Debug)]
pub struct Inflicted {
    /// The effect, in words.
    pub what: String,
    /// What trouble on a link did meanwhile, in words, where there was any.
    pub meanwhile: Option<String>,
    /// How long it took until a frozen leader was replaced.
    pub takeover: Option<Duration>,
}

impl From<String> for Inflicted {
    fn from(what: String) -> Self {
        Self { what, meanwhile: None, takeover: None }
    }
}

/// Something that must not be, whatever the fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Inflicts a fault of a kind while writes are on their way, and lifts it; `together` with trouble on a link.
///
/// # Errors
/// [`Violation`], or something failed that no fault can excuse.
pub async fn inflict(
    kind: Kind,
    together: bool,
    system: &mut System,
    world: &World,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    let instance = target(kind, system, random).await?;
    let companion = if together { Some(Companion::begin(system, random)?) } else { None };
    let effect = inflict_alone(kind, instance, system, world, random).await?;
    let meanwhile = match companion {
        Some(companion) => companion.end().await?,
        None => None,
    };
    Ok(effect.map(|inflicted| Inflicted { meanwhile, ..inflicted }))
}

/// The service that a fault is of, if it is of one. It is one that answers: others have nothing to lose.
async fn target(kind: Kind, system: &System, random: &mut StdRng) -> anyhow::Result<Instance> {
    let number = random.random_range(1..=2);
    let leading = match kind {
        Kind::FreezeNotifier | Kind::FreezeInFlush => true,
        // In most cases, for the standby only waits.
        Kind::KillNotifier | Kind::TermNotifier => random.random_bool(0.7),
        _ => false,
    };
    let instance = match kind {
        _ if leading => system.leader().await.map_err(|error| Violation(error.to_string()))?,
        Kind::KillIngest | Kind::TermIngest | Kind::FreezeIngest | Kind::FillUploads => {
            Part::IngestApi.replica(number)
        }
        Kind::KillGateway | Kind::TermGateway | Kind::FreezeGateway | Kind::FillClients => {
            Part::SseGateway.replica(number)
        }
        Kind::StepClock => {
            let parts = [Part::IngestApi, Part::StatsNotifier, Part::SseGateway];
            parts[random.random_range(0..parts.len())].replica(number)
        }
        Kind::KillNotifier | Kind::TermNotifier => Part::StatsNotifier.replica(number),
        // Of no service.
        _ => return Ok(Part::StatsNotifier.replica(number)),
    };
    let url = format!("{}/livez", system.stack.internal_url(instance));
    let answers = until(PATIENCE, async || {
        let answer = reqwest::Client::new().get(&url).timeout(EFFECT).send().await;
        Ok(answer.is_ok().then_some(()))
    });
    answers.await?.with_context(|| Violation(format!("{instance} did not start")))?;
    Ok(instance)
}

async fn inflict_alone(
    kind: Kind,
    instance: Instance,
    system: &mut System,
    world: &World,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    match kind {
        Kind::KillIngest | Kind::KillNotifier | Kind::KillGateway => {
            until_in_flight(&world.history).await?;
            let process = system.stack.process_ids().find(|(of, _)| *of == instance);
            system.stack.kill(instance).await;
            if let Some((_, process_id)) = process {
                Clocks::forget(process_id);
            }
            system.stack.start_one(instance)?;
            Ok(Some(format!("{instance} was killed").into()))
        }
        Kind::TermIngest | Kind::TermNotifier | Kind::TermGateway => {
            until_in_flight(&world.history).await?;
            if !system.stack.restart(instance, PATIENCE).await? {
                bail!(Violation(format!("{instance} did not end well when it was asked to")));
            }
            Ok(Some(format!("{instance} ended").into()))
        }
        Kind::FreezeIngest | Kind::FreezeGateway => freeze(system, world, instance, random).await,
        Kind::FreezeNotifier => freeze_leader(system, world, instance, random).await,
        Kind::FreezeInFlush => freeze_in_flush(system, world, instance, random).await,
        Kind::TerminateBackend => terminate_backend(system, world, random).await,
        Kind::StopPostgres => restart_postgres(system, world, Stop::Immediate).await,
        Kind::KillPostgres => restart_postgres(system, world, Stop::Kill).await,
        Kind::LinkCut => trouble(system, world, Mode::Cut, random).await,
        Kind::LinkStalled => trouble(system, world, Mode::Stalled, random).await,
        Kind::LinkSlow => {
            let wait = Duration::from_millis(random.random_range(20..200));
            trouble(system, world, Mode::Slow(wait), random).await
        }
        Kind::LinkReset => trouble(system, world, Mode::Reset(random.random()), random).await,
        Kind::FillUploads => fill_uploads(system, world, instance).await,
        Kind::FillClients => fill_clients(system, world, instance).await,
        Kind::StepClock => step_clock(system, world, instance, random).await,
        Kind::FillDisk => fill_disk(system, world, random).await,
    }
}

async fn until_in_flight(history: &History) -> anyhow::Result<()> {
    let in_flight = until(PATIENCE, async || Ok((history.in_flight() > 0).then_some(()))).await?;
    in_flight.context("no producer has written anything for a minute")
}

async fn for_a_while(random: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(milliseconds))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run tells one from a failure of its own by its type.
    #[test]
    fn a_violation_stays_one_in_whatever_way_it_is_raised() {
        let raised = || -> anyhow::Result<()> { bail!(Violation("wrong".to_owned())) };
        assert!(raised().unwrap_err().downcast::<Violation>().is_ok());
        let missing = None::<()>.context(Violation("wrong".to_owned()));
        assert!(missing.unwrap_err().downcast::<Violation>().is_ok());
    }
}
