//! A rolling upgrade from an older release, under load, and the way back.
//!
//! The programs of the older release make the schema and run on it. Then this release migrates it,
//! the older programs are restarted on the newer schema, and one instance after another becomes one
//! of this release. The way back is the same in the other direction, on the newer schema. Producers
//! write and subscribers follow all the time, and a client uses whichever replica answers, as it
//! does behind a load balancer: no request may fail at both.
//!
//! The checks are those of a run with faults ([`Verification`]). Both releases have to log what
//! they publish in the same form.

mod clients;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use local_stack::postgres::Installation;
use local_stack::stack::{Instance, built_programs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use self::clients::Clients;
use crate::checker::Checker;
use crate::fault::Violation;
use crate::run::{RECOVERY_TIMEOUT, RunOutcome, UNITS_KEPT, finish, slow_link, subscribe};
use crate::system::{Programs, SERVICE_TIMEOUT, System};
use crate::verification::Verification;
use crate::writers::{self, Writes};

/// Upgrades the whole stack from an older release under load, one process after another, goes back,
/// and checks everything. Exits with 1 if a check fails.
#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask upgrade", version)]
pub struct Plan {
    /// The folder of the older release's programs.
    #[arg(long)]
    older: PathBuf,
    /// Seed of what producers and subscribers do.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const SCHEMA_VERSION: &str = "SELECT max(version)::bigint FROM refinery_schema_history";

/// Upgrades and goes back. `log` receives a line for each step.
///
/// # Errors
/// The run itself fails.
pub async fn run(plan: &Plan, mut log: impl FnMut(&str)) -> anyhow::Result<RunOutcome> {
    let started = Instant::now();
    log("starting Postgres, and two of each service of the older release");
    let installation = Installation::find()?;
    let mut system = System::start(installation, Programs::Older(&plan.older), &UNITS_KEPT).await?;
    let world = system.world().await?;
    let mut random = StdRng::seed_from_u64(plan.seed);
    let slow_link = slow_link(&system).await?;
    let subscribers = subscribe(&system, &slow_link, &mut random);
    let writers = writers::start(&world, random.random(), Writes::All);
    let clients = Clients::start(&world, &system.wiring.gateways);
    let recovery_timeout = RECOVERY_TIMEOUT;
    let checker = Checker::default();
    let mut verification = Verification { world, subscribers, checker, recovery_timeout };
    let newer = built_programs()?;
    let mut upgrade =
        Upgrade { older: &plan.older, newer: &newer, restarts: 0, schemas: [0; 2], clients };
    let steps = upgrade.there_and_back(&mut system, &mut verification, &mut log).await;
    let violation = match steps {
        Ok(()) => None,
        Err(error) => match error.downcast::<Violation>() {
            Ok(Violation(violation)) => Some(violation),
            Err(error) => {
                let logs = system.logs();
                return Err(error.context(format!("the services' logs: {}", logs.display())));
            }
        },
    };
    let mut report = upgrade.report()?;
    let (writes, checked) = (verification.world.history.totals(), verification.checker.checked());
    write!(
        report,
        "{} writes acknowledged; {} versions in {} frames checked, {} buckets compared; {} s",
        writes.acknowledged,
        checked.versions,
        checked.frames,
        checked.buckets,
        started.elapsed().as_secs()
    )?;
    drop((upgrade, verification.subscribers, writers, slow_link));
    finish(system, report, violation).await
}

/// An upgrade, and what it has done.
struct Upgrade<'a> {
    older: &'a Path,
    newer: &'a Path,
    restarts: usize,
    /// The schema version that each release makes, the older one first.
    schemas: [i64; 2],
    clients: Clients,
}

impl Upgrade<'_> {
    async fn there_and_back(
        &mut self,
        system: &mut System,
        verification: &mut Verification,
        log: &mut impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let (older, newer) = (self.older, self.newer);
        let instances: Vec<Instance> = system.stack.instances().collect();
        verification.recover(&mut system.observed()).await?;
        verification.check_at_a_pause(&mut system.observed(), None).await?;
        self.schemas[0] = system.database.number(SCHEMA_VERSION).await?;

        log("migrating with this release");
        system.migrate(newer, "run").await?;
        self.schemas[1] = system.database.number(SCHEMA_VERSION).await?;
        verification.recover(&mut system.observed()).await?;
        log("restarting the older programs on this schema");
        system.migrate(older, "wait").await?;
        for instance in &instances {
            self.restart(system, verification, *instance, older).await?;
        }
        verification.check_at_a_pause(&mut system.observed(), None).await?;

        log("replacing each by one of this release");
        for instance in &instances {
            self.restart(system, verification, *instance, newer).await?;
        }
        verification.check_at_a_pause(&mut system.observed(), None).await?;

        log("going back, each to the older release");
        system.migrate(older, "run").await?;
        for instance in instances.iter().rev() {
            self.restart(system, verification, *instance, older).await?;
        }
        verification.check_at_a_pause(&mut system.observed(), None).await?;
        let after = system.database.number(SCHEMA_VERSION).await?;
        ensure!(
            after == self.schemas[1],
            Violation(format!("the schema became {after} on the way back"))
        );
        self.check_requests()
    }

    /// Stops an instance, starts it from a folder of programs, and waits until everything works.
    async fn restart(
        &mut self,
        system: &mut System,
        verification: &mut Verification,
        instance: Instance,
        programs: &Path,
    ) -> anyhow::Result<()> {
        let stack = &mut system.stack;
        stack.use_programs(instance, programs);
        let what = format!("{instance} of {}", programs.display());
        let ended_well = stack.restart(instance, SERVICE_TIMEOUT).await?;
        ensure!(
            ended_well,
            Violation(format!("before {what}: it did not stop without an error on SIGTERM"))
        );
        let ready = stack.until_ready(instance, SERVICE_TIMEOUT).await;
        ready.map_err(|error| Violation(format!("{what}: {error:#}")))?;
        self.restarts += 1;
        verification
            .recover(&mut system.observed())
            .await
            .with_context(|| format!("after the start of {what}"))?;
        self.check_requests()
    }

    /// No request may have failed at both replicas.
    fn check_requests(&self) -> anyhow::Result<()> {
        let failures = self.clients.failures();
        ensure!(failures.is_empty(), Violation(failures.join("\n")));
        Ok(())
    }

    fn report(&self) -> anyhow::Result<String> {
        let [from, to] = self.schemas;
        let (requests, slowest) = self.clients.totals();
        let mut report = String::new();
        write!(
            report,
            "schema {from} to {to}; {} restarts, one after another; {requests} requests answered by \
             one of two replicas, the slowest after {} ms, and {} by neither; ",
            self.restarts,
            slowest.as_millis(),
            self.clients.failures().len()
        )?;
        Ok(report)
    }
}
