//! A case: one cluster and one set of services, and one fault after another.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use domain::Nonce;

use super::audit::{self, AuditRow};
use super::fault::{self, HaFault, NodeState};
use super::gaps::GapMeter;
use super::namespace::Privilege;
use super::report::{FaultResult, Report};
use super::system::{DATABASE, HaSystem};
use super::{HaPlan, Route};
use crate::checker::{Checker, ReplacedHistory};
use crate::fault::Violation;
use crate::subscriber::{Behaviour, Subscriber};
use crate::verification::{Failover, Verification};
use crate::writers;

/// How long recovery may take, and how long it may take at a pause until every subscriber shows
/// every event. Generous, because the machine may be busy.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// How a case is set up.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) synchronous: bool,
    pub(super) route: Route,
    pub(super) faults: Vec<HaFault>,
}

impl Case {
    /// Runs the case in a new folder, and adds its results to the report. Fails with a
    /// [`Violation`] if a check fails; then the logs stay.
    pub(super) async fn run(
        &self,
        plan: &HaPlan,
        privilege: Privilege,
        report: &mut Report,
        log: &mut impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let folder = tempfile::Builder::new().prefix("newcycle-ha-").tempdir()?;
        // Postgres runs as another user, and must be able to enter the folder.
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), everyone)?;
        log(&format!("starting a cluster and the services, {}", self.name()));
        let outcome = self.run_in(folder.path(), plan, privilege, report, log).await;
        outcome.map_err(|error| {
            // The expected violation needs no explanation.
            if plan.planted && error.is::<Violation>() {
                return error;
            }
            let kept = folder.keep();
            error.context(format!("{}; the logs are in {}", self.name(), kept.display()))
        })
    }

    /// The name in the output.
    fn name(&self) -> String {
        format!("{}, through {}", replication(self.synchronous), self.route.name())
    }

    async fn run_in(
        &self,
        folder: &Path,
        plan: &HaPlan,
        privilege: Privilege,
        report: &mut Report,
        log: &mut impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let mut system = HaSystem::start(folder, privilege, self.synchronous, self.route).await?;
        report.description = system.description();
        let processes = system.processes();
        let world = system.world().await?;
        let subscribers = subscribe(&system.gateways(), plan.seed);
        let writers = writers::start(&world, plan.seed, writers::Writes::NewRows);
        let mut verification = Verification {
            world,
            subscribers,
            checker: Checker::default(),
            recovery_timeout: RECOVERY_TIMEOUT,
        };
        let outcome = async {
            verification.recover(&mut system.observed()).await?;
            verification.check_at_a_pause(&mut system.observed(), None).await?;
            for fault in &self.faults {
                let result = self.inject(*fault, plan, &mut system, &mut verification).await;
                let result = result.with_context(|| fault.name())?;
                log(&format!("  {result}"));
                report.results.push(result);
            }
            ensure!(
                system.processes() == processes,
                Violation(
                    "a service does not run in the process that the case began with".to_owned()
                )
            );
            anyhow::Ok(())
        };
        let outcome = outcome.await;
        report.acknowledged += verification.world.history.totals().acknowledged;
        report.checked.add(verification.checker.checked());
        outcome?;
        drop((verification, writers));
        let failed = system.stop().await;
        ensure!(
            failed.is_empty(),
            Violation(format!("these services did not stop without an error: {failed:?}"))
        );
        Ok(())
    }

    /// Injects one fault, waits until the services have recovered by themselves, brings the node
    /// back, and checks everything.
    async fn inject(
        &self,
        fault: HaFault,
        plan: &HaPlan,
        system: &mut HaSystem,
        verification: &mut Verification,
    ) -> anyhow::Result<FaultResult> {
        // What was checked at the last pause is on every node, so it cannot be lost.
        system.cluster.until_healthy().await?;
        system.cluster.until_replicated().await?;
        let old = system.cluster.until_primary(None).await?;
        let meter = GapMeter::start(&verification.world, &system.internal_gateways()).await?;
        let injected = SystemTime::now();
        let state = fault.inject(system, &verification.world, old).await?;
        let except = fault.moves_primary().then_some(old);
        let primary = system.cluster.until_primary(except).await?;
        verification.recover(&mut system.observed()).await?;
        meter.until_current().await?;
        let gaps = meter.stop().await?;
        let failover = match state {
            NodeState::Runs if primary != old && fault == HaFault::KillPostmaster => {
                bail!("Patroni made another node the primary, and what was lost cannot be known")
            }
            // Patroni stops the primary in order, and waits for a standby to have everything.
            NodeState::Runs => None,
            NodeState::Killed | NodeState::CutOff => {
                let (node, after) = (old, system.database.read());
                let audit = old_audit(system, node, state, after).await?;
                Some(self.failover(system, audit, after, injected, plan).await?)
            }
        };
        fault::end(system, old, state)?;
        system.cluster.until_healthy().await?;
        verification.recover(&mut system.observed()).await?;
        let lost = verification.check_at_a_pause(&mut system.observed(), failover).await?;
        ensure!(
            fault != HaFault::KillNodeAhead || lost > 0,
            "no acknowledged write was lost, although the standbys were behind: this proves nothing"
        );
        Ok(FaultResult { synchronous: self.synchronous, route: self.route, fault, gaps, lost })
    }

    /// What the failover has replaced. With synchronous replication, no acknowledged write may be
    /// lost.
    async fn failover(
        &self,
        system: &mut HaSystem,
        audit: Vec<AuditRow>,
        after: i64,
        injected: SystemTime,
        plan: &HaPlan,
    ) -> anyhow::Result<Failover> {
        let new = audit::of(system.database.client().await?, after).await?;
        let (changes, lost) = audit::compare(audit, &new);
        let published = system.observed().publications().clone();
        let before = published.iter().filter(|(_, publication)| publication.at <= injected);
        let terms: HashSet<Nonce> = before.map(|(version, _)| version.nonce).collect();
        let none_may_be_lost = self.synchronous || plan.planted;
        let may_be_lost = if none_may_be_lost { HashSet::new() } else { lost };
        Ok(Failover { replaced: ReplacedHistory { terms, changes }, may_be_lost })
    }
}

/// The audit of the server that was replaced, after the last pause.
async fn old_audit(
    system: &mut HaSystem,
    node: u8,
    state: NodeState,
    after: i64,
) -> anyhow::Result<Vec<AuditRow>> {
    let (settings, user) = (system.settings.clone(), system.user.clone());
    let node = system.cluster.node(node)?;
    match state {
        NodeState::CutOff => audit::of_cut(node, DATABASE, after).await,
        NodeState::Killed | NodeState::Runs => {
            audit::of_killed(node, &settings, &user, DATABASE, after)
        }
    }
}

/// The name of a kind of replication in the output.
pub(super) const fn replication(synchronous: bool) -> &'static str {
    if synchronous { "synchronous" } else { "asynchronous" }
}

/// Starts the subscribers. [`Verification`] relies on the order: the first two are steady, one of
/// each gateway.
fn subscribe(gateways: &[String], seed: u64) -> Vec<Subscriber> {
    let follow = |behaviour: Behaviour, urls: Vec<String>| {
        Subscriber::follow(
            format!("a subscriber ({behaviour:?}) of {}", urls[0]),
            behaviour,
            urls,
            seed,
        )
    };
    let steady = gateways.iter().map(|url| follow(Behaviour::Steady, vec![url.clone()]));
    let reconnecting = follow(Behaviour::Reconnecting, gateways.to_vec());
    steady.chain([reconnecting]).collect()
}
