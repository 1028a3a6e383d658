//! A run: faults one after another, and every few of them a rest at which everything is checked.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use local_stack::postgres::Installation;
use local_stack::stack::Part;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::checker::{Change, Checker};
use crate::fault::{Inflicted, Kind, Violation, inflict};
use crate::history::{Fate, Table};
use crate::link::{Link, Mode};
use crate::planted::Planted;
use crate::report::Report;
use crate::subscriber::{Subscriber, Temper};
use crate::system::System;
use crate::wait::until;
use crate::writers::{self, World};

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of Postgres.
    pub installation: Installation,
    /// Of the schedule.
    pub seed: u64,
    /// How many faults must have had an effect.
    pub faults: usize,
    /// The end, should it come first.
    pub time: Option<Duration>,
    /// Of which kinds.
    pub kinds: Vec<Kind>,
    /// An error in the system.
    pub planted: Option<Planted>,
    /// How long it may take until all is well again after a fault, and until everybody shows everything at rest.
    pub patience: Duration,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What it did.
    pub report: Report,
    /// What was wrong, in words, if anything was.
    pub violation: Option<String>,
    /// Where the services' logs were kept, if something was.
    pub logs: Option<PathBuf>,
}

/// Faults between two rests.
const BETWEEN_RESTS: usize = 12;

/// How many faults are followed by the next before the system has recovered.
const HASTE: f64 = 0.2;

/// How many faults come while a link is in trouble as well.
const TOGETHER: f64 = 0.2;

/// So often a kind of fault may be without an effect before it has had any.
const WITHOUT_EFFECT: usize = 5;

/// After so many faults something must have been written in every way.
const LONG_ENOUGH: usize = 20;

/// The checks expect all units to count what happened at any time.
const UNITS_KEPT: [(Part, &str, &str); 2] = [
    (Part::StatsNotifier, "NEWCYCLE__RETENTION__SECOND_DAYS", "0"),
    (Part::StatsNotifier, "NEWCYCLE__RETENTION__MINUTE_DAYS", "0"),
];

/// What the slow subscriber waits for each kilobyte.
const SLOW_LINE: Duration = Duration::from_millis(5);

/// Runs, until all is done or something is wrong. `say` is told of every step.
///
/// # Errors
/// The run itself fails.
pub async fn run(plan: &Plan, mut say: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    say("starting Postgres, two of each service, and the links between them");
    let system = System::start(plan.installation.clone(), plan.planted, &UNITS_KEPT).await?;
    let world = World::of(&system).await?;
    let mut random = StdRng::seed_from_u64(plan.seed);
    let slow_line = Link::to("slow line".to_owned(), system.gateway_port()?).await?;
    slow_line.set(Mode::Slow(SLOW_LINE));
    let subscribers = subscribe(&system, &slow_line, &mut random);
    let writers = writers::start(&world, random.random());
    let mut run = Run {
        system,
        patience: plan.patience,
        world,
        subscribers,
        checker: Checker::default(),
        _slow_line: slow_line,
        _writers: writers,
    };
    let postgres = plan.installation.version().to_string();
    let mut report = Report { seed: plan.seed, postgres, ..Report::default() };
    let mut violation = match run.faults(plan, &mut random, &mut report, started, &mut say).await {
        Ok(()) => None,
        Err(error) => match error.downcast::<Violation>() {
            Ok(Violation(violation)) => Some(violation),
            Err(error) => return Err(error.context(run.system.postgres_log())),
        },
    };
    report.writes = run.world.history.totals();
    report.checked = run.checker.checked;
    report.took = started.elapsed();
    let Run { system, subscribers, _writers: writers, .. } = run;
    drop((subscribers, writers));
    let logs = system.logs();
    let unwell = system.stop().await;
    if violation.is_none() && !unwell.is_empty() {
        violation = Some(format!("these services did not end well at last: {unwell:?}"));
    }
    let logs = if violation.is_some() {
        Some(logs)
    } else {
        System::remove(&logs)?;
        None
    };
    Ok(Outcome { report, violation, logs })
}

fn subscribe(system: &System, slow_line: &Link, random: &mut StdRng) -> Vec<Subscriber> {
    let tempers = [
        // One steady subscriber of each gateway, who tell when all is well again.
        (Temper::Steady, 0),
        (Temper::Steady, 1),
        (Temper::Slow, 0),
        (Temper::Stalled, 1),
        (Temper::Restless, 0),
        (Temper::Restless, 1),
    ];
    let follow = |(number, (temper, first)): (usize, (Temper, usize))| {
        let mut urls = system.gateways.clone();
        urls.rotate_left(first);
        // Only the restless move on.
        urls.truncate(if temper == Temper::Restless { 2 } else { 1 });
        if temper == Temper::Slow {
            urls = vec![slow_line.url()];
        }
        let name = format!("subscriber {} ({temper:?})", number + 1);
        Subscriber::follow(name, temper, urls, random.random())
    };
    tempers.into_iter().enumerate().map(follow).collect()
}

struct Run {
    system: System,
    patience: Duration,
    world: World,
    subscribers: Vec<Subscriber>,
    checker: Checker,
    _slow_line: Link,
    _writers: JoinSet<()>,
}

impl Run {
    async fn faults(
        &mut self,
        plan: &Plan,
        random: &mut StdRng,
        report: &mut Report,
        started: Instant,
        say: &mut impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let mut kinds = plan.kinds.clone();
        kinds.retain(|kind| {
            let missing = kind.missing(&self.system);
            report.left_out.extend(missing.map(|why| (*kind, why)));
            missing.is_none()
        });
        if kinds.is_empty() {
            bail!("none of these faults can be inflicted here");
        }
        self.recover().await?;
        self.rest(report).await?;
        let (mut deck, mut rested): (Vec<Kind>, usize) = (Vec::new(), 0);
        while report.counted() < plan.faults {
            if plan.time.is_some_and(|time| started.elapsed() > time) {
                say("the time is up");
                break;
            }
            // Every kind as often as any other, in an order of the seed's.
            if deck.is_empty() {
                deck.clone_from(&kinds);
                deck.shuffle(random);
            }
            let Some(kind) = deck.pop() else { continue };
            // Drawn for each fault alike, so that the schedule does not depend on what faults do.
            let (together, hasty) = (random.random_bool(TOGETHER), random.random_bool(HASTE));
            let mut own = random.fork();
            self.well()?;
            let (begun, stale) = (Instant::now(), self.told_stale());
            let effect = inflict(kind, together, &mut self.system, &self.world, &mut own).await?;
            let (lasted, lifted) = (begun.elapsed().as_secs_f64(), Instant::now());
            let (name, number) = (kind.name(), report.counted() + 1);
            let of_kind = report.kinds.entry(kind).or_default();
            of_kind.inflicted += 1;
            let Some(Inflicted { what, meanwhile, takeover }) = effect else {
                say(&format!("       {name}: without an effect, does not count"));
                if of_kind.effects == 0 && of_kind.inflicted == WITHOUT_EFFECT {
                    bail!("{name}: {WITHOUT_EFFECT} times without an effect, so nothing can be said of it");
                }
                continue;
            };
            of_kind.effects += 1;
            of_kind.takeovers.extend(takeover);
            let alone = meanwhile.is_none();
            let what = match meanwhile {
                Some(meanwhile) => format!("{what}; meanwhile {meanwhile}"),
                None => what,
            };
            report.together += usize::from(!alone);
            if hasty {
                say(&format!("{number:>5}  {name}, {lasted:.2} s: {what}; the next does not wait"));
                continue;
            }
            self.recover().await.map_err(|error| match error.downcast::<Violation>() {
                Ok(Violation(wrong)) => Violation(format!("after {name}: {wrong}")).into(),
                Err(error) => error,
            })?;
            let took = lifted.elapsed();
            // Otherwise some of it was over before trouble on a link was.
            if alone {
                report.kinds.entry(kind).or_default().recoveries.push(took);
            }
            // The gateways heard nothing for longer than they take numbers for live.
            if alone
                && takeover.is_some()
                && self.told_stale().iter().zip(stale).any(|(now, then)| *now == then)
            {
                bail!(Violation(format!(
                    "after {name}: nobody was told that the numbers were stale meanwhile"
                )));
            }
            let took = took.as_secs_f64();
            say(&format!("{number:>5}  {name}, {lasted:.2} s: {what}; well again {took:.2} s later"));
            if report.counted() >= rested + BETWEEN_RESTS {
                self.rest(report).await?;
                rested = report.counted();
            }
        }
        self.recover().await?;
        self.rest(report).await?;
        let untried = self.world.history.untried();
        if report.counted() >= LONG_ENOUGH && !untried.is_empty() {
            bail!(Violation(format!("nothing was ever written in these ways: {untried:?}")));
        }
        Ok(())
    }

    /// Nothing has gone wrong that no fault excuses.
    fn well(&mut self) -> anyhow::Result<()> {
        self.system.unwell().map_or(Ok(()), |wrong| Err(Violation(wrong).into()))
    }

    /// How often the steady subscribers were told that the numbers are stale.
    fn told_stale(&self) -> [u64; 2] {
        [0, 1].map(|steady: usize| self.subscribers[steady].told_stale())
    }

    /// Waits until a write to each ingest-api is acknowledged, and shown by each gateway as live.
    async fn recover(&mut self) -> anyhow::Result<()> {
        self.well()?;
        for ingest in 0..self.world.ingest.len() {
            let item = writers::probe(&self.world, ingest, self.patience).await;
            let item = item.map_err(|error| Violation(format!("ingest-api {}: {error:#}", ingest + 1)))?;
            let transaction = self.system.database.transaction_of(item).await?;
            let (transaction, made) = transaction
                .with_context(|| Violation(format!("{item} was acknowledged, but is not in items")))?;
            for subscriber in &self.subscribers[..2] {
                let shown = || {
                    let version = subscriber.version()?;
                    self.system.published().get(&version).filter(|shown| shown.sees(transaction, made))?;
                    subscriber.is_live().then_some(())
                };
                until(self.patience, async || Ok(shown())).await?.with_context(|| {
                    let (name, seconds) = (subscriber.name(), self.patience.as_secs());
                    let (version, live) = (subscriber.version(), subscriber.is_live());
                    let has = version.map_or("nothing".to_owned(), |version| version.to_string());
                    Violation(format!(
                        "{name} was not shown an acknowledged write, live, within {seconds} s; it has {has}, live: {live}"
                    ))
                })?;
            }
        }
        Ok(())
    }

    /// Lets the writers pause, waits until everybody shows everything, and checks all that was since the last rest.
    async fn rest(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let history = Arc::clone(&self.world.history);
        history.pause(true);
        until(self.patience, async || Ok((history.in_flight() == 0).then_some(())))
            .await?
            .context("the producers did not come to rest")?;
        self.until_unwritten().await?;
        let changes = self.system.database.changes().await?;
        let all_shown = || {
            let published = self.system.published();
            let version = self.subscribers[0].version()?;
            let shown = published.get(&version)?;
            let everybody = self.subscribers.iter().all(|other| other.version() == Some(version));
            let everything = changes.iter().all(|change| shown.sees(change.transaction, change.made));
            (everybody && everything).then_some(())
        };
        if until(self.patience, async || Ok(all_shown())).await?.is_none() {
            bail!(Violation(self.not_everything(&changes)));
        }
        let (mut frames, mut wrong) = (Vec::new(), history.complaints());
        for subscriber in &self.subscribers {
            let (of_one, out_of_order) = subscriber.take();
            frames.push(of_one);
            wrong.extend(out_of_order);
        }
        wrong.extend(self.checker.check(&self.system.published(), &changes, &frames));
        wrong.extend(self.wrong_rows().await?);
        wrong.extend(self.wrong_counts().await?);
        report.rests += 1;
        if !wrong.is_empty() {
            bail!(Violation(wrong.join("\n")));
        }
        history.pause(false);
        Ok(())
    }

    /// Says who was not shown what, at rest.
    fn not_everything(&self, changes: &[Change]) -> String {
        let shown = self.subscribers.iter().map(|subscriber| {
            let Some(version) = subscriber.version() else {
                return format!("{} has no version", subscriber.name());
            };
            let published = self.system.published();
            let unseen = changes.iter().filter(|change| {
                published.get(&version).is_none_or(|shown| !shown.sees(change.transaction, change.made))
            });
            let (name, unseen) = (subscriber.name(), unseen.count());
            match unseen {
                0 => format!("{name} has {version}, which lacks nothing"),
                _ => format!("{name} has {version}, whose snapshot does not see {unseen} committed changes"),
            }
        });
        format!("at rest not everybody was shown everything: {}", shown.collect::<Vec<_>>().join("; "))
    }

    /// What was sent before the pause, by somebody who no longer waits for it, may still come.
    async fn until_unwritten(&mut self) -> anyhow::Result<()> {
        let database = &mut self.system.database;
        let unwritten =
            until(self.patience, async || Ok((!database.is_written().await?).then_some(()))).await?;
        unwritten.context(Violation("a transaction did not end in time at rest".to_owned()))
    }

    /// Compares the tables with what was acknowledged.
    async fn wrong_rows(&mut self) -> anyhow::Result<Vec<String>> {
        let mut wrong = Vec::new();
        for table in Table::ALL {
            let name = table.name();
            let stored: HashMap<_, _> = self.system.database.rows(table).await?.into_iter().collect();
            if let Some(id) = self.system.database.unbalanced(table).await? {
                wrong.push(format!("{id} was not written to {name} exactly once"));
            }
            let history = &self.world.history;
            let rows = history.rows();
            for ((of, id), fate) in rows.iter().filter(|((of, _), _)| *of == table) {
                match (fate, stored.get(id)) {
                    (Fate::Stored, None) => {
                        wrong.push(format!("{id} was acknowledged, but is not in {name}"));
                    }
                    (Fate::Absent, Some(_)) => {
                        wrong.push(format!("{id} was refused or deleted, but is in {name}"));
                    }
                    (_, Some(time)) if history.time(*of, *id).is_some_and(|asked| asked != *time) => {
                        wrong.push(format!(
                            "{id} in {name} counts at {time:?}, but another time was asked for"
                        ));
                    }
                    _ => {}
                }
            }
            let unasked = stored.keys().filter(|id| !rows.contains_key(&(table, **id)));
            wrong.extend(unasked.map(|id| format!("{id} is in {name}, but nobody wrote it")));
        }
        wrong.truncate(20);
        Ok(wrong)
    }

    /// Compares with the events the audit, from which all windows have just been checked, and the rollups.
    async fn wrong_counts(&mut self) -> anyhow::Result<Vec<String>> {
        let counted = self.system.database.recount().await?;
        let audited: HashSet<_> = self.checker.counts().collect();
        let mut wrong = Vec::new();
        for (topic, time, count) in counted.symmetric_difference(&audited).take(10) {
            let whose = if counted.contains(&(topic.clone(), *time, *count)) { "events" } else { "audit" };
            wrong.push(format!("{topic} at {time} is {count} by the {whose} alone"));
        }
        // They follow about once a second.
        let (database, mut rollups) = (&mut self.system.database, 0);
        let right = until(self.patience, async || {
            rollups = database.wrong_rollups().await?;
            Ok((rollups == 0).then_some(()))
        });
        if right.await?.is_none() {
            wrong.push(format!("{rollups} rollups are not what the events say"));
        }
        Ok(wrong)
    }
}
