//! A long time in short: the services are used, disturbed and cleared up after for some minutes, and nothing may grow.

mod clients;
mod long_transactions;
mod samples;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use local_stack::stack::Part;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;
use uuid::Uuid;

use crate::fault::{Kind, inflict};
use crate::history::{Fate, History, Table};
use crate::soak::clients::Clients;
use crate::soak::samples::{Samples, descriptors};
use crate::system::{PATIENCE, System};
use crate::wait::until;
use crate::writers::{self, Parents, World};

pub use crate::soak::long_transactions::long_transactions;

/// What a soak did, and what grew.
#[derive(Debug)]
pub struct Outcome {
    /// A table, for people.
    pub report: String,
    /// What grew, in words; empty where nothing did.
    pub grown: Vec<String>,
}

/// Only so many days of seconds and minutes are kept, of which producers write some that are older.
const DAYS: &str = "1";

/// What is disturbed, in turn: takeovers without the end of a process, so that each can be watched for the whole time,
/// and everything that opens and closes connections.
const DISTURBANCES: [Kind; 6] = [
    Kind::FreezeNotifier,
    Kind::TerminateBackend,
    Kind::FillUploads,
    Kind::LinkReset,
    Kind::FillClients,
    Kind::LinkCut,
];

/// More than that no process may have open at rest at the end than at the beginning: as many as its pools may hold.
const DESCRIPTORS: usize = 24;

/// How often everything is measured.
const MEASURE: Duration = Duration::from_secs(1);

/// Uses everything for `time`. `say` is told of every step.
///
/// # Errors
/// Something fails that is no growth.
pub async fn soak(seed: u64, time: Duration, mut say: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    say("starting Postgres, two of each service, and the links between them");
    let retention = [
        ("NEWCYCLE__RETENTION__SECOND_DAYS", DAYS),
        ("NEWCYCLE__RETENTION__MINUTE_DAYS", DAYS),
        ("NEWCYCLE__RETENTION__INTERVAL_SECONDS", "5"),
    ];
    let retention = retention.map(|(variable, value)| (Part::StatsNotifier, variable, value));
    let (mut system, world) = start(&retention).await?;
    let mut random = StdRng::seed_from_u64(seed);
    let writers = writers::start(&world, seed);
    let clients = Clients::start(system.gateways.clone(), seed);
    // Pools and windows fill once.
    tokio::time::sleep(time / 10).await;
    rest(&mut system, &world, &clients).await?;
    let before = descriptors(&system)?;
    say("at rest for the first time; now for the long time");
    wake(&world, &clients);

    let (started, mut measured, mut samples) = (Instant::now(), Instant::now(), Samples::default());
    let (mut disturbances, mut restarts) = (0, 0);
    for kind in DISTURBANCES.into_iter().cycle() {
        if started.elapsed() > time {
            break;
        }
        disturbances += usize::from(inflict(kind, &mut system, &world, &mut random).await?.is_some());
        if kind == Kind::LinkCut {
            system.stack.restart(Part::SseGateway.replica(2), PATIENCE).await?;
            restarts += 1;
        }
        clients.history().await;
        while measured.elapsed() < MEASURE {
            tokio::time::sleep(MEASURE.saturating_sub(measured.elapsed())).await;
        }
        measured = Instant::now();
        samples.measure(&mut system).await?;
    }
    rest(&mut system, &world, &clients).await?;
    say("at rest again");
    let mut grown = samples.grown();
    grown.extend(left_behind(&mut system, &before).await?);
    let terms: std::collections::HashSet<_> =
        system.published().keys().map(|version| version.nonce).collect();
    let writes = world.history.totals();
    let report = format!(
        "{}\nin {} s: {} streams, {} pages of history, {disturbances} disturbances, {restarts} restarts of a gateway, {} terms, \
         {} writes acknowledged, seed {seed}",
        samples.table(),
        started.elapsed().as_secs(),
        clients.streams(),
        clients.pages(),
        terms.len(),
        writes.acknowledged,
    );
    drop((writers, clients));
    system.stop(false).await?;
    Ok(Outcome { report, grown })
}

/// Everything, with what events refer to.
async fn start(variables: &[(Part, &'static str, &str)]) -> anyhow::Result<(System, World)> {
    let system = System::start(None, variables).await?;
    let parents = Parents { base_item: Uuid::now_v7(), user: Uuid::now_v7(), item: Uuid::now_v7() };
    system.database.prepare(parents.base_item, parents.user, parents.item).await?;
    let history = Arc::new(History::default());
    history.note(Table::Items, [parents.item], Fate::Stored);
    let (ingest, database) = (system.ingest.clone(), system.sql.clone());
    Ok((system, World { ingest, database, parents, history }))
}

/// Nobody writes or follows any more, and what was logged is counted and purged.
async fn rest(system: &mut System, world: &World, clients: &Clients) -> anyhow::Result<()> {
    world.history.pause(true);
    clients.pause(true);
    let quiet = until(PATIENCE, async || {
        let quiet = world.history.in_flight() == 0 && clients.connected() == 0;
        Ok((quiet && !system.database.is_written().await?).then_some(()))
    });
    quiet.await?.context("producers and clients did not come to rest")?;
    let purged = until(PATIENCE, async || {
        let log: i64 = number(system, "SELECT count(*) FROM count_log").await?;
        Ok((log == 0).then_some(()))
    });
    purged.await?.context("the change log was not purged within a minute of rest")
}

fn wake(world: &World, clients: &Clients) {
    world.history.pause(false);
    clients.pause(false);
}

/// What is still there at rest that should not be.
async fn left_behind(system: &mut System, before: &[(String, usize)]) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    let closed = until(PATIENCE, async || {
        left.clear();
        for ((process, now), (_, then)) in descriptors(system)?.iter().zip(before) {
            if *now > then + DESCRIPTORS {
                left.push(format!("{process} has {now} descriptors open at rest, {then} at the beginning"));
            }
        }
        Ok(left.is_empty().then_some(()))
    });
    closed.await?;
    let old = format!(
        "SELECT count(*) FROM rollup WHERE unit IN ('second', 'minute') AND bucket < now() - interval '{DAYS} days' \
         - interval '1 day'"
    );
    let deleted = until(PATIENCE, async || Ok((number(system, &old).await? == 0).then_some(())));
    if deleted.await?.is_none() {
        left.push("seconds or minutes that are no longer kept are still stored".to_owned());
    }
    Ok(left)
}

/// A number that a query returns.
async fn number(system: &mut System, query: &str) -> anyhow::Result<i64> {
    Ok(system.database.client().await?.query_one(query, &[]).await?.get(0))
}
