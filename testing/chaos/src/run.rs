//! A run: one fault after another, and after every few of them a pause at which everything is
//! checked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use local_stack::link::{Link, LinkMode};
use local_stack::postgres::Installation;
use local_stack::stack::{ServiceKind, Variable};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::checker::Checker;
use crate::fault::{FaultEffect, Violation, inject, unavailable};
use crate::fault_kind::FaultKind;
use crate::planted::Planted;
use crate::report::RunReport;
use crate::subscriber::{Behaviour, Subscriber};
use crate::system::{Programs, System};
use crate::verification::{Verification, check_services};
use crate::writers::{self, Writes};

/// Injects faults into the whole stack while producers write and subscribers follow, and checks
/// that no event is lost or counted twice. Exits with 1 if a check fails, or if a planted error is
/// not found.
#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask chaos", version)]
pub struct Plan {
    /// Seed of the schedule of faults; random by default. The timing between processes still
    /// differs from run to run.
    #[arg(long, default_value_t = u64::from(rand::random::<u32>()), hide_default_value = true)]
    pub seed: u64,
    /// Number of faults that must have an effect.
    #[arg(long, default_value_t = 100)]
    faults: usize,
    /// Stops after this many minutes, even if fewer faults have had an effect.
    #[arg(long)]
    minutes: Option<u64>,
    /// Injects only these kinds of fault.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<FaultKind>,
    /// Folder of the Postgres programs to use, such as /usr/lib/postgresql/15/bin. The default is
    /// the newest version on this machine.
    #[arg(long)]
    postgres: Option<PathBuf>,
    /// Puts a known error into the system. The run succeeds when the checks find it.
    #[arg(long, value_enum)]
    pub planted: Option<Planted>,
}

impl Plan {
    /// The kinds of fault to inject.
    fn kinds(&self) -> &[FaultKind] {
        if !self.only.is_empty() {
            &self.only
        } else if let Some(planted) = self.planted {
            planted.faults()
        } else {
            FaultKind::ALL
        }
    }

    fn writes(&self) -> Writes {
        if self.planted.is_some_and(Planted::only_new_rows) { Writes::NewRows } else { Writes::All }
    }

    fn recovery_timeout(&self) -> Duration {
        if self.planted.is_some() { PLANTED_RECOVERY_TIMEOUT } else { RECOVERY_TIMEOUT }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct RunOutcome {
    /// What the run did, as a table.
    pub report: String,
    /// What was wrong, if anything was.
    pub violation: Option<String>,
    /// The file of the services' logs. It is kept only after a violation.
    pub logs: Option<PathBuf>,
}

/// How long recovery may take after a fault, and how long it may take at a pause until every
/// subscriber shows every event.
pub(crate) const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// As [`RECOVERY_TIMEOUT`], with a planted error. Some numbers then never become right, so waiting
/// longer does not help.
const PLANTED_RECOVERY_TIMEOUT: Duration = Duration::from_secs(15);

/// The number of faults between two pauses.
const FAULTS_BETWEEN_PAUSES: usize = 12;

/// The share of faults that the next fault follows before the system has recovered.
const NO_RECOVERY_SHARE: f64 = 0.2;

/// The share of faults during which a link has a fault as well.
const BACKGROUND_SHARE: f64 = 0.2;

/// A run fails if the first faults of a kind have no effect this many times.
const INEFFECTIVE_MAX: usize = 5;

/// After this many faults every kind of write must have succeeded at least once.
const ALL_WRITE_KINDS_AFTER: usize = 20;

/// The checks expect every unit to count events of any age.
pub(crate) const UNITS_KEPT: [Variable<'_>; 2] = [
    (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__SECOND_DAYS", "0"),
    (ServiceKind::StatsNotifier, "NEWCYCLE__RETENTION__MINUTE_DAYS", "0"),
];

/// The delay of each kilobyte on the link of the slow subscriber.
const SLOW_LINK_DELAY: Duration = Duration::from_millis(5);

/// Runs until all faults are done or something is wrong. `log` receives a line for each step.
///
/// # Errors
/// The run itself fails.
pub async fn run(plan: &Plan, mut log: impl FnMut(&str)) -> anyhow::Result<RunOutcome> {
    let started = Instant::now();
    log("starting Postgres, two of each service, and the links between them");
    let installation = match &plan.postgres {
        Some(programs) => Installation::at(programs)?,
        None => Installation::find()?,
    };
    let postgres = installation.version().to_string();
    let programs = plan.planted.map_or(Programs::Built, Programs::Planted);
    let mut system = System::start(installation, programs, &UNITS_KEPT).await?;
    let world = system.world().await?;
    let mut random = StdRng::seed_from_u64(plan.seed);
    let slow_link = slow_link(&system).await?;
    let subscribers = subscribe(&system, &slow_link, &mut random);
    let writers = writers::start(&world, random.random(), plan.writes());
    let checker = Checker::default();
    let recovery_timeout = plan.recovery_timeout();
    let mut verification = Verification { world, subscribers, checker, recovery_timeout };
    let mut report = RunReport { seed: plan.seed, postgres, ..RunReport::default() };
    let faults = inject_all(
        plan,
        &mut system,
        &mut verification,
        &mut random,
        &mut report,
        started,
        &mut log,
    )
    .await;
    let violation = match faults {
        Ok(()) => None,
        Err(error) => match error.downcast::<Violation>() {
            Ok(Violation(violation)) => Some(violation),
            Err(error) => return Err(error.context(system.postgres_log())),
        },
    };
    report.writes = verification.world.history.totals();
    report.checked = verification.checker.checked();
    report.duration = started.elapsed();
    drop((verification.subscribers, writers, slow_link));
    finish(system, report.to_string(), violation).await
}

/// The link of the slow subscriber, to sse-gateway 1.
pub(crate) async fn slow_link(system: &System) -> anyhow::Result<Link> {
    let link = Link::to("slow link".to_owned(), system.gateway_port()?).await?;
    link.set(LinkMode::Slow(SLOW_LINK_DELAY));
    Ok(link)
}

/// Stops the system. Its logs stay only after a violation, also one of the stop itself.
pub(crate) async fn finish(
    system: System,
    report: String,
    mut violation: Option<String>,
) -> anyhow::Result<RunOutcome> {
    let logs = system.logs();
    let failed = system.stop().await;
    if violation.is_none() && !failed.is_empty() {
        violation =
            Some(format!("these services did not stop without an error at the end: {failed:?}"));
    }
    if violation.is_none() {
        System::remove(&logs)?;
    }
    let logs = violation.is_some().then_some(logs);
    Ok(RunOutcome { report, violation, logs })
}

/// Starts the subscribers. [`Verification`] relies on the order: the first two are steady, one of
/// each gateway.
pub(crate) fn subscribe(system: &System, slow_link: &Link, random: &mut StdRng) -> Vec<Subscriber> {
    let first = &system.wiring.gateways[0];
    let second = &system.wiring.gateways[1];
    let slow = &slow_link.url();
    // Only reconnecting subscribers change the gateway.
    let behaviours: [(Behaviour, &[&String]); 6] = [
        (Behaviour::Steady, &[first]),
        (Behaviour::Steady, &[second]),
        (Behaviour::Slow, &[slow]),
        (Behaviour::Stalled, &[second]),
        (Behaviour::Reconnecting, &[first, second]),
        (Behaviour::Reconnecting, &[second, first]),
    ];
    let follow = |(number, (behaviour, urls)): (usize, (Behaviour, &[&String]))| {
        let name = format!("subscriber {number} ({behaviour:?})");
        let urls = urls.iter().copied().cloned().collect();
        Subscriber::follow(name, behaviour, urls, random.random())
    };
    (1..).zip(behaviours).map(follow).collect()
}

async fn inject_all(
    plan: &Plan,
    system: &mut System,
    verification: &mut Verification,
    random: &mut StdRng,
    report: &mut RunReport,
    started: Instant,
    log: &mut impl FnMut(&str),
) -> anyhow::Result<()> {
    let time_limit = plan.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let mut kinds = plan.kinds().to_vec();
    kinds.retain(|kind| {
        let reason = unavailable(*kind, system);
        report.left_out.extend(reason.map(|reason| (*kind, reason)));
        reason.is_none()
    });
    ensure!(!kinds.is_empty(), "none of these faults can be injected on this machine");
    verification.recover(&mut system.observed()).await?;
    verification.check_at_a_pause(&mut system.observed(), None).await?;
    report.pauses += 1;
    let mut deck: Vec<FaultKind> = Vec::new();
    let mut counted_at_pause = 0;
    while report.counted() < plan.faults {
        if time_limit.is_some_and(|limit| started.elapsed() > limit) {
            log("the time limit is reached");
            break;
        }
        // A shuffled deck injects every kind equally often, in an order that the seed determines.
        if deck.is_empty() {
            deck.clone_from(&kinds);
            deck.shuffle(random);
        }
        let Some(kind) = deck.pop() else { continue };
        // Drawn in the same way for each fault, so that the schedule does not depend on the
        // effects.
        let in_background = random.random_bool(BACKGROUND_SHARE);
        let no_recovery = random.random_bool(NO_RECOVERY_SHARE);
        let mut own_random = random.fork();
        check_services(&mut system.observed())?;
        let begun = Instant::now();
        let stale_before = verification.stale_statuses();
        let world = &verification.world;
        let effect = inject(kind, in_background, system, world, &mut own_random).await?;
        let lasted = begun.elapsed().as_secs_f64();
        let lifted = Instant::now();
        let name = kind.name();
        let number = report.counted() + 1;
        let of_kind = report.kinds.entry(kind).or_default();
        of_kind.injected += 1;
        let Some(FaultEffect { what, meanwhile, takeover }) = effect else {
            log(&format!("       {name}: no effect, does not count"));
            ensure!(
                of_kind.effects > 0 || of_kind.injected < INEFFECTIVE_MAX,
                "{name}: had no effect {INEFFECTIVE_MAX} times, so the run proves nothing about it"
            );
            continue;
        };
        of_kind.effects += 1;
        of_kind.takeovers.extend(takeover);
        let alone = meanwhile.is_none();
        let what = match meanwhile {
            Some(meanwhile) => format!("{what}; meanwhile {meanwhile}"),
            None => what,
        };
        report.with_background += usize::from(!alone);
        if no_recovery {
            log(&format!(
                "{number:>5}  {name}, {lasted:.2} s: {what}; the next fault follows at once"
            ));
            continue;
        }
        verification.recover(&mut system.observed()).await.map_err(|error| {
            match error.downcast::<Violation>() {
                Ok(Violation(wrong)) => Violation(format!("after {name}: {wrong}")).into(),
                Err(error) => error,
            }
        })?;
        let recovery = lifted.elapsed();
        // With a fault in the background, a part of the recovery happened before `lifted`.
        if alone {
            report.kinds.entry(kind).or_default().recoveries.push(recovery);
        }
        // Without a leader the gateways receive nothing for longer than their stale timeout.
        let mut stale = verification.stale_statuses().into_iter().zip(stale_before);
        ensure!(
            !alone || takeover.is_none() || stale.all(|(now, before)| now != before),
            Violation(format!("after {name}: a gateway did not report stale numbers meanwhile"))
        );
        let recovery = recovery.as_secs_f64();
        log(&format!(
            "{number:>5}  {name}, {lasted:.2} s: {what}; recovered after {recovery:.2} s"
        ));
        if report.counted() >= counted_at_pause + FAULTS_BETWEEN_PAUSES {
            verification.check_at_a_pause(&mut system.observed(), None).await?;
            report.pauses += 1;
            counted_at_pause = report.counted();
        }
    }
    verification.recover(&mut system.observed()).await?;
    verification.check_at_a_pause(&mut system.observed(), None).await?;
    report.pauses += 1;
    let untried = verification.world.history.untried();
    ensure!(
        report.counted() < ALL_WRITE_KINDS_AFTER || untried.is_empty(),
        Violation(format!("these kinds of write have never succeeded: {untried:?}"))
    );
    Ok(())
}
