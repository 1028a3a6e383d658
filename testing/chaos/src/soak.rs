//! Some minutes of load, faults and cleaning up, during which nothing may grow. They stand for
//! weeks of normal use.

mod clients;
mod long_transactions;
mod samples;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join_all;
use local_stack::internal;
use local_stack::postgres::Installation;
use local_stack::stack::{ServiceKind, Variable};
use local_stack::test_database::client;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Method;
use tokio::time::Instant;
use uuid::Uuid;

use self::clients::Clients;
use self::samples::{Sampler, descriptors};
use crate::fault::inject;
use crate::fault_kind::FaultKind;
use crate::subscriber::{Behaviour, Subscriber};
use crate::system::{Programs, SERVICE_TIMEOUT, System};
use crate::wait::until;
use crate::world::TestWorld;
use crate::writers::{self, Writes};

pub use self::long_transactions::long_transactions;

/// The result of a soak.
#[derive(Debug)]
pub struct SoakOutcome {
    /// What was measured, as a table.
    pub report: String,
    /// What grew or was wrong; empty after a good run.
    pub problems: Vec<String>,
}

/// Seconds and minutes are kept for a day, and older ones are deleted every second.
const RETENTION: [Variable<'_>; 3] = [
    (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__SECOND_DAYS", "1"),
    (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__MINUTE_DAYS", "1"),
    (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__INTERVAL", "1s"),
];

/// Events older than the retention. A rebuild without retention counts their seconds, which the
/// leader then has to delete again.
const INSERT_OLD_EVENTS: &str = "
    INSERT INTO items
    SELECT gen_random_uuid(), base_item_id, now() - interval '5 days' + n * interval '1 s'
    FROM (SELECT id AS base_item_id FROM base_items LIMIT 1) AS parent, generate_series(1, 5000) AS n";
const OLD_SECONDS: i64 = 5_000;

const WITHOUT_RETENTION: [(&str, &str); 2] =
    [("NEWCYCLE__RETENTION__SECOND_DAYS", "0"), ("NEWCYCLE__RETENTION__MINUTE_DAYS", "0")];

const EXPIRED_ROLLUPS: &str = "
    SELECT count(*)
    FROM rollup
    WHERE unit IN ('second', 'minute') AND bucket < now() - interval '2 days'";

/// Dead rows in the rollups, as of the last vacuum and what was written since.
const DEAD_ROLLUPS: &str = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'rollup'";

const DELETED_ROLLUPS: &str = "SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'rollup'";

/// The faults, in turn: takeovers that do not end a process, so that each process can be measured
/// for the whole time, and everything that opens and closes connections.
const FAULTS: [FaultKind; 6] = [
    FaultKind::FreezeNotifier,
    FaultKind::TerminateBackend,
    FaultKind::FillUploads,
    FaultKind::LinkReset,
    FaultKind::FillClients,
    FaultKind::LinkCut,
];

/// The most file descriptors that both replicas of a service together may have more at the second
/// pause than at the first.
const DESCRIPTOR_TOLERANCE: usize = 4;

/// The number of requests at a time that opens every connection of each pool.
const BURST: usize = 48;

/// Runs for `duration`. `log` receives a line for each step.
///
/// # Errors
/// Something fails that is not about growth.
pub async fn soak(
    seed: u64,
    duration: Duration,
    mut log: impl FnMut(&str),
) -> anyhow::Result<SoakOutcome> {
    log("starting Postgres, two of each service, and the links between them");
    let mut system = System::start(Installation::find()?, Programs::Built, &RETENTION).await?;
    let world = system.world().await?;
    system.database.client().await?.batch_execute(INSERT_OLD_EVENTS).await?;
    let mut random = StdRng::seed_from_u64(seed);
    let writers = writers::start(&world, seed, Writes::All);
    let clients = Clients::start(system.wiring.gateways.clone(), seed);
    let follow = |name: &str, behaviour| {
        Subscriber::follow(name.to_owned(), behaviour, system.wiring.gateways.clone(), seed)
    };
    let subscribers =
        [follow("reconnecting", Behaviour::Reconnecting), follow("stalled", Behaviour::Stalled)];
    // Pools and windows fill once, and expired rollups are deleted once, before anything is
    // measured.
    let mut rebuilds = Rebuilds::default();
    rebuilds.rebuild(&mut system).await?;
    tokio::time::sleep(duration / 10).await;
    fill_pools(&system).await;
    pause(&mut system, &world, &clients).await?;
    let before = descriptors(&system)?;
    log("the first pause has ended; the measurement begins");
    world.history.pause(false);
    clients.pause(false);

    let started = Instant::now();
    let sampler = Sampler::start(&system).await?;
    let mut problems = Vec::new();
    let mut effects: BTreeMap<FaultKind, usize> = FAULTS.map(|kind| (kind, 0)).into();
    let mut restarts = 0;
    let terms = |system: &System| {
        system.publications().keys().map(|version| version.nonce).collect::<HashSet<_>>().len()
    };
    let terms_before = terms(&system);
    for kind in FAULTS.into_iter().cycle() {
        if started.elapsed() > duration {
            break;
        }
        let effect = inject(kind, false, &mut system, &world, &mut random).await?;
        *effects.entry(kind).or_default() += usize::from(effect.is_some());
        clients.request_history().await;
        if kind == FaultKind::LinkCut {
            system.stack.restart(ServiceKind::SseGateway.replica(2), SERVICE_TIMEOUT).await?;
            restarts += 1;
            rebuilds.rebuild(&mut system).await?;
        }
        // The counts of the frames are checked by the chaos runs.
        problems.extend(subscribers.iter().flat_map(|subscriber| subscriber.take().errors));
    }
    let samples = sampler.stop().await?;
    fill_pools(&system).await;
    pause(&mut system, &world, &clients).await?;
    log("the second pause has ended");
    problems.extend(samples.grown());
    problems.extend(leaked_descriptors(&mut system, &before).await?);
    if !system.run_notifier("verify", &[]).await? {
        problems.push("`stats-notifier verify` found wrong counts".to_owned());
    }
    problems.extend(system.observed().violation());
    problems.extend(world.history.take_violations());
    let terms = terms(&system) - terms_before;
    let resumed: u64 = subscribers.iter().map(|subscriber| subscriber.received().streams).sum();
    let streams = clients.streams();
    let pages = clients.pages();
    for (what, number) in
        [("streams", streams), ("pages", pages), ("restarts", restarts), ("further terms", terms)]
    {
        if number == 0 {
            problems.push(format!("there were no {what}, so the run proves nothing about them"));
        }
    }
    for (kind, _) in effects.iter().filter(|(_, effects)| **effects == 0) {
        problems
            .push(format!("{}: had no effect, so the run proves nothing about it", kind.name()));
    }
    let report = format!(
        "{}\nin {} s: {streams} streams, {resumed} of them resumed or long, {pages} pages of history, \
         {} faults, {restarts} restarts of a gateway, {} rebuilds with {} rollups deleted after them, \
         {terms} takeovers, {} writes acknowledged, seed {seed}",
        samples.table(),
        started.elapsed().as_secs(),
        effects.values().sum::<usize>(),
        rebuilds.number,
        rebuilds.deleted,
        world.history.totals().acknowledged,
    );
    drop((writers, clients, subscribers));
    finish(system).await?;
    Ok(SoakOutcome { report, problems })
}

/// Stops the system and removes its files.
async fn finish(system: System) -> anyhow::Result<()> {
    let logs = system.logs();
    let failed = system.stop().await;
    ensure!(
        failed.is_empty(),
        "these services did not stop without an error: {failed:?}; see {}",
        logs.display()
    );
    System::remove(&logs)
}

/// The rebuilds of a soak, and the rollups that the leader deleted after them.
#[derive(Debug, Default)]
struct Rebuilds {
    number: usize,
    deleted: i64,
}

impl Rebuilds {
    /// Rebuilds the rollups of all units, and waits until the leader has deleted the expired ones.
    async fn rebuild(&mut self, system: &mut System) -> anyhow::Result<()> {
        let before = system.database.number(DELETED_ROLLUPS).await?;
        let rebuilt = system.run_notifier("rebuild", &WITHOUT_RETENTION).await?;
        ensure!(rebuilt, "`stats-notifier rebuild` failed");
        let mut deleted = 0;
        let expired = until(SERVICE_TIMEOUT, async || {
            deleted = system.database.number(DELETED_ROLLUPS).await? - before;
            Ok(deleted >= OLD_SECONDS && system.database.number(EXPIRED_ROLLUPS).await? == 0)
        });
        ensure!(expired.await?, "expired rollups were not deleted within a minute");
        // In production, autovacuum has days for this before the next rebuild. Here a busy machine
        // could put it off until then, or a writer's open transaction could still need the dead
        // rows, and the table would have to grow.
        let vacuumed = until(SERVICE_TIMEOUT, async || {
            system.database.client().await?.batch_execute("VACUUM rollup").await?;
            Ok(system.database.number(DEAD_ROLLUPS).await? < OLD_SECONDS / 2)
        });
        ensure!(vacuumed.await?, "the rollups of a rebuild were not vacuumed within a minute");
        self.number += 1;
        self.deleted += deleted;
        Ok(())
    }
}

/// Sends enough requests at once to make every pool open all its connections.
async fn fill_pools(system: &System) {
    let client = client();
    let mut urls = Vec::new();
    for number in [1, 2] {
        let ingest_api = system.stack.url(ServiceKind::IngestApi.replica(number));
        urls.push((Method::GET, format!("{ingest_api}/items?limit=1")));
        // Writes have a pool of their own. There is no such item.
        urls.push((Method::DELETE, format!("{ingest_api}/items/{}", Uuid::nil())));
        let notifier = system.stack.internal_url(ServiceKind::StatsNotifier.replica(number));
        let history = format!("{notifier}/internal/v1/history/transfers/hour?limit=1");
        urls.push((Method::GET, history));
    }
    let urls = urls.iter().flat_map(|url| std::iter::repeat_n(url, BURST));
    let inside = internal::client();
    let requests = urls.map(|(method, url)| {
        let client = if url.contains("/internal/") { &inside } else { &client };
        client.request(method.clone(), url).send()
    });
    // The responses do not matter.
    drop(join_all(requests).await);
}

/// Pauses producers and clients, and waits until the change log is counted and purged.
async fn pause(system: &mut System, world: &TestWorld, clients: &Clients) -> anyhow::Result<()> {
    world.history.pause(true);
    clients.pause(true);
    let quiet = until(SERVICE_TIMEOUT, async || {
        let quiet = world.history.in_flight() == 0 && clients.connected() == 0;
        Ok(quiet && !system.database.is_written().await?)
    });
    ensure!(quiet.await?, "producers and clients did not pause in time");
    let log_rows = "SELECT count(*) FROM count_log";
    let purged = until(SERVICE_TIMEOUT, async || Ok(system.database.number(log_rows).await? == 0));
    ensure!(purged.await?, "the change log was not purged within a minute of a pause");
    Ok(())
}

/// The services that have more file descriptors open than at the first pause.
async fn leaked_descriptors(
    system: &mut System,
    before: &BTreeMap<String, usize>,
) -> anyhow::Result<Vec<String>> {
    let mut leaked = Vec::new();
    let closed = until(SERVICE_TIMEOUT, async || {
        leaked.clear();
        let now = descriptors(system)?;
        for (service, then) in before {
            let now = now.get(service).copied().unwrap_or_default();
            if now > then + DESCRIPTOR_TOLERANCE {
                leaked.push(format!(
                    "{service} has {now} file descriptors open at the second pause, and had {then} at the first"
                ));
            }
        }
        Ok(leaked.is_empty())
    });
    closed.await?;
    Ok(leaked)
}
