//! The faults: each is inflicted, seen to have an effect, and lifted again.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use domain::Nonce;
use local_stack::postgres::Stop;
use local_stack::stack::{Instance, Part};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::database::{HOLD, LET_GO};
use crate::history::{Fate, History, Table};
use crate::link::Mode;
use crate::system::{MAX_CLIENTS, PATIENCE, System};
use crate::writers::{self, World};

/// How long a fault may take to have its effect.
const EFFECT: Duration = Duration::from_secs(10);

/// Within which a frozen leader must have been replaced.
const TAKEOVER: Duration = Duration::from_secs(15);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

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
    /// The clock of an ingest-api is stepped.
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

/// What a fault did, in words; nothing where it had no effect.
pub type Effect = Option<String>;

/// Something that must not be, whatever the fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Inflicts a fault of a kind while writes are on their way, and lifts it.
///
/// # Errors
/// [`Violation`], or something failed that no fault can excuse.
pub async fn inflict(
    kind: Kind,
    system: &mut System,
    world: &World,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    let number = random.random_range(1..=2);
    let instance = match kind {
        Kind::KillIngest | Kind::TermIngest | Kind::FreezeIngest => Part::IngestApi.replica(number),
        Kind::KillGateway | Kind::TermGateway | Kind::FreezeGateway => Part::SseGateway.replica(number),
        Kind::FreezeNotifier | Kind::FreezeInFlush => system.leader().await?,
        // The leader in most cases, for the standby only waits.
        _ if random.random_bool(0.7) => system.leader().await?,
        _ => Part::StatsNotifier.replica(number),
    };
    match kind {
        Kind::KillIngest | Kind::KillNotifier | Kind::KillGateway => {
            until_in_flight(&world.history).await?;
            system.stack.kill(instance).await;
            system.stack.start_one(instance)?;
            Ok(Some(format!("{instance} was killed")))
        }
        Kind::TermIngest | Kind::TermNotifier | Kind::TermGateway => {
            until_in_flight(&world.history).await?;
            if !system.stack.restart(instance, PATIENCE).await? {
                bail!(Violation(format!("{instance} did not end well when it was asked to")));
            }
            Ok(Some(format!("{instance} ended")))
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
        Kind::FillUploads => fill_uploads(system, world, number).await,
        Kind::FillClients => fill_clients(system, world, number).await,
        Kind::StepClock => step_clock(system, world, number, random).await,
        Kind::FillDisk => fill_disk(system, world, random).await,
    }
}

async fn until_in_flight(history: &History) -> anyhow::Result<()> {
    let in_flight = until(PATIENCE, async || Ok((history.in_flight() > 0).then_some(()))).await?;
    in_flight.context("no producer has written anything for a minute")
}

/// Looks until there is something; `None` at the end of `patience`.
async fn until<T>(
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        if started.elapsed() > patience {
            return Ok(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn for_a_while(random: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(milliseconds))).await;
}

async fn freeze(
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
    Ok(silent.then(|| format!("{instance} did not answer")))
}

async fn freeze_leader(
    system: &mut System,
    world: &World,
    leader: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let frozen = system.stack.freeze(leader).await?;
    let old = system.newest_term();
    let replaced = until_replaced(system, old, leader).await;
    for_a_while(random, 0..1_500).await;
    frozen.thaw();
    replaced
}

/// A frozen leader that is not replaced is what must not be.
async fn until_replaced(system: &System, old: Option<Nonce>, leader: Instance) -> anyhow::Result<Effect> {
    let new = until(TAKEOVER, async || Ok(system.newest_term().filter(|new| Some(*new) != old))).await?;
    if new.is_none() {
        let seconds = TAKEOVER.as_secs();
        bail!(Violation(format!("{leader} was frozen as the leader, and not replaced within {seconds} s")));
    }
    Ok(Some(format!("{leader} was replaced")))
}

async fn freeze_in_flush(
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
    let old = system.newest_term();
    holder.execute(LET_GO, &[]).await?;
    // The last write is answered; the frozen leader would commit next.
    let database = &mut system.database;
    let open = "state = 'idle in transaction'";
    let between = until(EFFECT, async || Ok(database.backend_is(backend, open).await?.then_some(()))).await?;
    let replaced = until_replaced(system, old, leader).await;
    for_a_while(random, 0..1_500).await;
    frozen.thaw();
    let replaced = replaced?;
    Ok(replaced.filter(|_| between.is_some()).map(|replaced| format!("{replaced} before its commit")))
}

async fn terminate_backend(
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
    Ok(ended.then(|| format!("a session of {user} ended ({application})")))
}

async fn restart_postgres(system: &mut System, world: &World, way: Stop) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let in_flight = world.history.in_flight();
    system.stop_postgres(way);
    system.start_postgres()?;
    Ok(Some(format!("{in_flight} writes were on their way")))
}

/// Makes trouble on one link until it has had an effect, and for a while.
async fn trouble(
    system: &mut System,
    world: &World,
    mode: Mode,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    let link = system.links.choose(random).context("there are no links")?;
    until_in_flight(&world.history).await?;
    let before = link.effects();
    link.set(mode);
    let effects = || {
        let (broken, held) = link.effects();
        (broken - before.0, held - before.1)
    };
    let effect = until(EFFECT, async || Ok(Some(effects()).filter(|effects| *effects != (0, 0)))).await?;
    match mode {
        Mode::Reset(_) | Mode::Open => {}
        // Longer than the silence that anybody bears, now and then.
        Mode::Cut | Mode::Stalled | Mode::Slow(_) => for_a_while(random, 100..4_500).await,
    }
    let (broken, held) = effects();
    link.set(Mode::Open);
    let name = &link.name;
    Ok(effect.map(|_| format!("{name}: {broken} connections broken, {held} bytes held back")))
}

/// More uploads than are taken at a time, none of which ends before all have begun.
async fn fill_uploads(system: &System, world: &World, number: usize) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let url = format!("{}/items", system.stack.url(Part::IngestApi.replica(number)));
    let end = CancellationToken::new();
    let mut uploads = JoinSet::new();
    for _ in 0..32 {
        let end = end.clone();
        // A first piece without a row, and no end yet.
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>("\n")]);
        let rest = futures_util::stream::once(async move {
            end.cancelled().await;
            Ok("\n")
        });
        let body = reqwest::Body::wrap_stream(futures_util::StreamExt::chain(first, rest));
        let request = reqwest::Client::new().post(&url).header("content-type", "application/x-ndjson");
        let request = request.body(body).timeout(Duration::from_secs(20));
        uploads.spawn(async move { request.send().await.map_or(0, |answer| answer.status().as_u16()) });
    }
    // Those that are not taken are answered while the others wait.
    let first = tokio::time::timeout(EFFECT, uploads.join_next()).await;
    let refused = matches!(first, Ok(Some(Ok(503))));
    end.cancel();
    let statuses = uploads.join_all().await;
    let also = statuses.iter().filter(|status| **status == 503).count();
    Ok(refused.then(|| format!("{} uploads were answered 503", also + 1)))
}

async fn fill_clients(system: &System, world: &World, number: usize) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let url =
        format!("{}/statistics?topic=transfers/year", system.stack.url(Part::SseGateway.replica(number)));
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..MAX_CLIENTS + 16 {
        let stream = reqwest::Client::new().get(&url).timeout(EFFECT).send().await?;
        refused += usize::from(stream.status() == 503);
        streams.push(stream);
    }
    Ok((refused > 0).then(|| format!("{refused} clients were answered 503")))
}

async fn step_clock(
    system: &mut System,
    world: &World,
    number: usize,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    const DAY: i64 = 86_400;
    let seconds = random.random_range(3_600..3 * DAY) * if random.random_bool(0.5) { 1 } else { -1 };
    let clocks = system.clocks.as_ref().context("there are no clocks")?;
    until_in_flight(&world.history).await?;
    clocks.step(number, seconds)?;
    let item = writers::probe(world, number - 1, PATIENCE).await;
    for_a_while(random, 100..1_500).await;
    clocks.step(number, 0)?;
    let item = item?;
    let created = system.database.created_at(item).await?;
    let now = SystemTime::now();
    let off = now.duration_since(created).or_else(|_| created.duration_since(now)).unwrap_or_default();
    let effect = off.as_secs() > seconds.unsigned_abs() / 2;
    Ok(effect.then(|| format!("ingest-api {number} was off by {seconds} s")))
}

/// Until a write fails, and for a while; Postgres may end of it.
async fn fill_disk(system: &mut System, world: &World, random: &mut StdRng) -> anyhow::Result<Effect> {
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
            Ok(()) => None,
            Err(error) => Some(error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)),
        })
    })
    .await;
    for_a_while(random, 0..1_500).await;
    system.disk.as_ref().context("there is no disk")?.empty()?;
    if !system.postgres_runs() {
        system.start_postgres()?;
    }
    Ok(failed?.map(|failed| format!("a write failed: {failed}")))
}
