//! The report of a run, as a table.

use std::fmt;
use std::time::Duration;

use super::Route;
use super::case::replication;
use super::fault::HaFault;
use super::gaps::Gaps;
use crate::checker::CheckTotals;

/// What one fault did.
#[derive(Debug)]
pub(super) struct FaultResult {
    pub(super) synchronous: bool,
    pub(super) route: Route,
    pub(super) fault: HaFault,
    pub(super) gaps: Gaps,
    /// Acknowledged writes that Postgres lost.
    pub(super) lost: usize,
}

/// What all cases did.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The versions and settings of the cluster.
    pub(super) description: String,
    pub(super) results: Vec<FaultResult>,
    /// Writes of all producers.
    pub(super) acknowledged: u64,
    pub(super) checked: CheckTotals,
    pub(super) duration: Duration,
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// One line of the output.
impl fmt::Display for FaultResult {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, gaps, lost, .. } = self;
        write!(
            formatter,
            "{}: no event acknowledged for {}, counts up to {} old, {lost} acknowledged writes lost by Postgres",
            fault.name(),
            seconds(gaps.unacknowledged),
            seconds(gaps.age)
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "| replication | through | fault | no event acknowledged for | counts at most this old | lost by Postgres |"
        )?;
        writeln!(formatter, "|---|---|---|---:|---:|---:|")?;
        for FaultResult { synchronous, route, fault, gaps, lost } in &self.results {
            let (replication, route) = (replication(*synchronous), route.name());
            let (unacknowledged, age) = (seconds(gaps.unacknowledged), seconds(gaps.age));
            let fault = fault.name();
            writeln!(
                formatter,
                "| {replication} | {route} | {fault} | {unacknowledged} | {age} | {lost} |"
            )?;
        }
        let CheckTotals { versions, frames, buckets } = self.checked;
        write!(
            formatter,
            "\n{} faults in {} s: {}; {} writes acknowledged; {versions} versions in {frames} frames checked, \
             {buckets} buckets compared; no service was started again",
            self.results.len(),
            self.duration.as_secs(),
            self.description,
            self.acknowledged
        )
    }
}
