//! Failovers of a real cluster: three nodes with Patroni and etcd, each in network and process
//! namespaces of its own, and the services, which must follow the primary by themselves.
//!
//! Producers, subscribers and checks are those of the other runs. What a failover loses without
//! synchronous replication is read from the server that was replaced: no more than that may be
//! missing, and the counts must be those of what is left.

mod audit;
mod case;
mod cluster;
mod fault;
mod gaps;
mod haproxy;
pub mod namespace;
mod network;
mod node;
mod report;
mod settings;
mod system;

use anyhow::ensure;
use clap::ValueEnum;
use tokio::time::Instant;

use self::case::Case;
use self::fault::HaFault;
use self::haproxy::HaProxy;
use self::namespace::Privilege;
use self::report::Report;
use crate::fault::Violation;

/// Runs three nodes with Patroni and etcd, injects faults into the primary's while producers write
/// and subscribers follow, and checks that the services follow by themselves, that nothing is lost
/// but what Postgres has lost, and that nothing counts twice. Prints a table of the gaps. Exits
/// with 1 if a check fails.
#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask ha", version)]
pub struct HaPlan {
    /// Runs only what `cargo xtask ci` runs.
    #[arg(long, conflicts_with_all = ["only", "replication", "through", "planted"])]
    short: bool,
    /// Injects only these faults.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<HaFault>,
    /// Only with this kind of replication.
    #[arg(long, value_enum)]
    replication: Option<Replication>,
    /// Only with services that reach the primary in this way.
    #[arg(long, value_enum)]
    through: Option<Route>,
    /// Seed of what the producers write.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Checks asynchronous replication as if it were synchronous. The run succeeds if the checks
    /// find the lost writes.
    #[arg(long, conflicts_with_all = ["only", "replication", "through"])]
    pub planted: bool,
    /// Only checks whether this machine permits the namespaces that the nodes live in.
    #[arg(long)]
    pub check: bool,
    /// The namespaces are there; the program passes this to itself.
    #[arg(long, value_enum, hide = true)]
    pub inside: Option<Privilege>,
}

/// Whether a commit waits for a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Replication {
    Synchronous,
    Asynchronous,
}

/// How the services reach the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Route {
    /// Their settings list all nodes.
    List,
    /// HAProxy leads to the primary.
    #[value(name = "haproxy")]
    HaProxy,
}

impl Route {
    const fn name(self) -> &'static str {
        match self {
            Self::List => "a list of hosts",
            Self::HaProxy => "HAProxy",
        }
    }
}

impl HaPlan {
    /// The cases to run, each with at least one fault.
    fn cases(&self) -> Vec<Case> {
        if self.short {
            return vec![
                Case {
                    synchronous: true,
                    route: Route::HaProxy,
                    faults: vec![HaFault::KillNode, HaFault::Cut],
                },
                Case {
                    synchronous: false,
                    route: Route::List,
                    faults: vec![HaFault::KillNodeAhead, HaFault::Switchover],
                },
            ];
        }
        if self.planted {
            let faults = vec![HaFault::KillNodeAhead];
            return vec![Case { synchronous: false, route: Route::List, faults }];
        }
        let replications = [Replication::Synchronous, Replication::Asynchronous];
        let replications = replications
            .into_iter()
            .filter(|kind| self.replication.is_none_or(|only| only == *kind));
        let cases = replications.flat_map(|kind| {
            let routes = [Route::List, Route::HaProxy].into_iter();
            let routes = routes.filter(|route| self.through.is_none_or(|only| only == *route));
            routes.map(move |route| self.case(kind == Replication::Synchronous, route))
        });
        cases.filter(|case| !case.faults.is_empty()).collect()
    }

    fn case(&self, synchronous: bool, route: Route) -> Case {
        let faults = HaFault::value_variants().iter().copied();
        let faults = faults.filter(|fault| fault.occurs(synchronous));
        let faults = faults.filter(|fault| self.only.is_empty() || self.only.contains(fault));
        Case { synchronous, route, faults: faults.collect() }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct HaOutcome {
    /// What the run did, as a table.
    pub report: String,
    /// What was wrong, if anything was.
    pub violation: Option<String>,
}

/// Runs all cases, or until something is wrong. `log` receives a line for each step.
///
/// # Errors
/// The run itself fails.
pub async fn run(
    plan: &HaPlan,
    privilege: Privilege,
    mut log: impl FnMut(&str),
) -> anyhow::Result<HaOutcome> {
    let started = Instant::now();
    namespace::prepare()?;
    let mut report = Report::default();
    let mut violation = None;
    let cases = plan.cases();
    ensure!(!cases.is_empty(), "no fault of this selection occurs with this kind of replication");
    for case in cases {
        match case.run(plan, privilege, &mut report, &mut log).await {
            Ok(()) => {}
            Err(error) if error.is::<Violation>() => {
                violation = Some(format!("{error:#}"));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    report.duration = started.elapsed();
    let proxy = HaProxy::description()?;
    report.description = format!("{}; {proxy}", report.description);
    Ok(HaOutcome { report: report.to_string(), violation })
}
