//! A long time in short: the services are used, disturbed and cleared up after for some minutes, and nothing may grow.

mod clients;
mod long_transactions;
mod samples;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use local_stack::postgres::Installation;
use local_stack::stack::Part;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::fault::{Kind, inflict};
use crate::soak::clients::Clients;
use crate::soak::samples::{Sampler, descriptors};
use crate::subscriber::{Subscriber, Temper};
use crate::system::{PATIENCE, System};
use crate::wait::until;
use crate::writers::{self, World};

pub use crate::soak::long_transactions::long_transactions;

/// What a soak did, and what grew.
#[derive(Debug)]
pub struct Outcome {
    /// A table, for people.
    pub report: String,
    /// What grew, in words; empty where nothing did.
    pub grown: Vec<String>,
}

/// Seconds and minutes are kept for a day.
const RETENTION: [(Part, &str, &str); 3] = [
    (Part::StatsNotifier, "NEWCYCLE__RETENTION__SECOND_DAYS", "1"),
    (Part::StatsNotifier, "NEWCYCLE__RETENTION__MINUTE_DAYS", "1"),
    (Part::StatsNotifier, "NEWCYCLE__RETENTION__INTERVAL", "1s"),
];

/// A past whose seconds a rebuild without retention counts, so that the leader has to give them up and delete them anew.
const PAST: &str = "INSERT INTO items SELECT gen_random_uuid(), base_item_id, now() - interval '5 days' + n * interval '1 s' \
     FROM (SELECT id AS base_item_id FROM base_items LIMIT 1) AS parent, generate_series(1, 5000) AS n";
const PAST_SECONDS: i64 = 5_000;
const ALL_KEPT: [(&str, &str); 2] =
    [("NEWCYCLE__RETENTION__SECOND_DAYS", "0"), ("NEWCYCLE__RETENTION__MINUTE_DAYS", "0")];
const NOT_KEPT: &str =
    "SELECT count(*) FROM rollup WHERE unit IN ('second', 'minute') AND bucket < now() - interval '2 days'";
const DELETED: &str = "SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'rollup'";

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

/// By so many descriptors both replicas of a part together may differ from one rest to the next.
const DESCRIPTORS: usize = 4;

/// Requests at a time that fill every pool.
const BURST: usize = 48;

/// Uses everything for `time`. `say` is told of every step.
///
/// # Errors
/// Something fails that is no growth.
pub async fn soak(seed: u64, time: Duration, mut say: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    say("starting Postgres, two of each service, and the links between them");
    let (mut system, world) = start(&RETENTION).await?;
    system.database.client().await?.batch_execute(PAST).await?;
    let mut random = StdRng::seed_from_u64(seed);
    let writers = writers::start(&world, seed);
    let clients = Clients::start(system.gateways.clone(), seed);
    let follow =
        |name: &str, temper| Subscriber::follow(name.to_owned(), temper, system.gateways.clone(), seed);
    let subscribers = [follow("restless", Temper::Restless), follow("stalled", Temper::Stalled)];
    // Pools and windows fill once, and rollups of the past are deleted once.
    let mut rebuilds = Rebuilds::default();
    rebuilds.once(&mut system).await?;
    tokio::time::sleep(time / 10).await;
    fill_pools(&system).await;
    rest(&mut system, &world, &clients).await?;
    let before = descriptors(&system)?;
    say("at rest for the first time; now for the long time");
    world.history.pause(false);
    clients.pause(false);

    let started = Instant::now();
    let (sampler, mut grown) = (Sampler::start(&system).await?, Vec::new());
    let mut disturbances: BTreeMap<Kind, usize> = DISTURBANCES.map(|kind| (kind, 0)).into();
    let mut restarts = 0;
    let terms = |system: &System| {
        system.published().keys().map(|version| version.nonce).collect::<HashSet<_>>().len()
    };
    let terms_before = terms(&system);
    for kind in DISTURBANCES.into_iter().cycle() {
        if started.elapsed() > time {
            break;
        }
        let effect = inflict(kind, false, &mut system, &world, &mut random).await?;
        *disturbances.entry(kind).or_default() += usize::from(effect.is_some());
        clients.history().await;
        if kind == Kind::LinkCut {
            system.stack.restart(Part::SseGateway.replica(2), PATIENCE).await?;
            restarts += 1;
            rebuilds.once(&mut system).await?;
        }
        // Whether the counts that they got are right is checked elsewhere.
        grown.extend(subscribers.iter().flat_map(|subscriber| subscriber.take().1));
    }
    let samples = sampler.stop().await?;
    fill_pools(&system).await;
    rest(&mut system, &world, &clients).await?;
    say("at rest again");
    grown.extend(samples.grown());
    grown.extend(left_behind(&mut system, &before).await?);
    if !system.run_notifier("verify", &[]).await? {
        grown.push("`stats-notifier verify` does not find all counts right".to_owned());
    }
    grown.extend(system.unwell());
    grown.extend(world.history.complaints());
    let terms = terms(&system) - terms_before;
    let resumed: u64 = subscribers.iter().map(Subscriber::streams).sum();
    let (streams, pages) = (clients.streams(), clients.pages());
    for (what, number) in
        [("streams", streams), ("pages", pages), ("restarts", restarts), ("further terms", terms)]
    {
        if number == 0 {
            grown.push(format!("there were no {what}: nothing can be said of them"));
        }
    }
    for (kind, _) in disturbances.iter().filter(|(_, effects)| **effects == 0) {
        grown.push(format!("{} had no effect: nothing can be said of it", kind.name()));
    }
    let report = format!(
        "{}\nin {} s: {streams} streams, {resumed} of them resumed or long, {pages} pages of history, {} disturbances, \
         {restarts} restarts of a gateway, {} rebuilds with {} rollups deleted after them, {terms} takeovers, {} writes acknowledged, \
         seed {seed}",
        samples.table(),
        started.elapsed().as_secs(),
        disturbances.values().sum::<usize>(),
        rebuilds.number,
        rebuilds.deleted,
        world.history.totals().acknowledged,
    );
    drop((writers, clients, subscribers));
    finish(system).await?;
    Ok(Outcome { report, grown })
}

/// Stops everything.
async fn finish(system: System) -> anyhow::Result<()> {
    let logs = system.logs();
    let unwell = system.stop().await;
    ensure!(unwell.is_empty(), "these services did not end well: {unwell:?}; see {}", logs.display());
    System::remove(&logs)
}

/// Everything, with what events refer to.
async fn start(variables: &[(Part, &'static str, &str)]) -> anyhow::Result<(System, World)> {
    let system = System::start(Installation::find()?, None, variables).await?;
    let world = World::of(&system).await?;
    Ok((system, world))
}

/// Rebuilds, and what the leader deleted after them.
#[derive(Debug, Default)]
struct Rebuilds {
    number: usize,
    deleted: i64,
}

impl Rebuilds {
    /// Counts everything in all units, and waits until the leader has deleted what it does not keep.
    async fn once(&mut self, system: &mut System) -> anyhow::Result<()> {
        let before = number(system, DELETED).await?;
        ensure!(system.run_notifier("rebuild", &ALL_KEPT).await?, "`stats-notifier rebuild` failed");
        let mut deleted = 0;
        let given_up = until(PATIENCE, async || {
            deleted = number(system, DELETED).await? - before;
            Ok((deleted >= PAST_SECONDS && number(system, NOT_KEPT).await? == 0).then_some(()))
        });
        given_up.await?.context("seconds that are not kept were not deleted within a minute")?;
        self.number += 1;
        self.deleted += deleted;
        Ok(())
    }
}

/// As many requests at once as make every pool open all its connections.
async fn fill_pools(system: &System) {
    let client = reqwest::Client::new();
    let mut urls = Vec::new();
    for number in [1, 2] {
        urls.push(format!("{}/items?limit=1", system.stack.url(Part::IngestApi.replica(number))));
        let notifier = system.stack.internal_url(Part::StatsNotifier.replica(number));
        urls.push(format!("{notifier}/internal/v1/history/transfers/hour?limit=1"));
    }
    let urls = urls.iter().flat_map(|url| std::iter::repeat_n(url, BURST));
    let requests = urls.map(|url| client.get(url).send());
    // Only the attempt counts.
    drop(join_all(requests).await);
}

/// Nobody writes or comes any more, and what was logged is counted and purged.
async fn rest(system: &mut System, world: &World, clients: &Clients) -> anyhow::Result<()> {
    world.history.pause(true);
    clients.pause(true);
    let quiet = until(PATIENCE, async || {
        let quiet = world.history.in_flight() == 0 && clients.connected() == 0;
        Ok((quiet && !system.database.is_written().await?).then_some(()))
    });
    quiet.await?.context("producers and clients did not come to rest")?;
    let purged = until(PATIENCE, async || {
        Ok((number(system, "SELECT count(*) FROM count_log").await? == 0).then_some(()))
    });
    purged.await?.context("the change log was not purged within a minute of rest")
}

/// What is still there at rest that was not there before.
async fn left_behind(system: &mut System, before: &BTreeMap<String, usize>) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    let closed = until(PATIENCE, async || {
        left.clear();
        let now = descriptors(system)?;
        for (part, then) in before {
            let now = now.get(part).copied().unwrap_or_default();
            if now > then + DESCRIPTORS {
                left.push(format!("{part} has {now} descriptors open at rest, {then} at the beginning"));
            }
        }
        Ok(left.is_empty().then_some(()))
    });
    closed.await?;
    Ok(left)
}

/// A number that a query returns.
async fn number(system: &mut System, query: &str) -> anyhow::Result<i64> {
    Ok(system.database.client().await?.query_one(query, &[]).await?.get(0))
}
