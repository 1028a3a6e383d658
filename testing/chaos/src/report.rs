//! The report of a run, as a table.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use crate::checker::CheckTotals;
use crate::fault_kind::FaultKind;
use crate::history::WriteTotals;

/// The faults of one kind.
#[derive(Debug, Default, Clone)]
pub(crate) struct FaultTotals {
    pub(crate) injected: usize,
    /// How many of them had an effect.
    pub(crate) effects: usize,
    /// From the end of such a fault until a write made after it was acknowledged and shown. Faults
    /// during which a link had a fault too are left out, and those that the next fault followed at
    /// once.
    pub(crate) recoveries: Vec<Duration>,
    /// From the freeze of a leader until another one published.
    pub(crate) takeovers: Vec<Duration>,
}

/// The report of a run.
#[derive(Debug, Default)]
pub(crate) struct RunReport {
    /// The version of Postgres.
    pub(crate) postgres: String,
    pub(crate) seed: u64,
    pub(crate) kinds: BTreeMap<FaultKind, FaultTotals>,
    /// The faults with an effect during which a link had a fault, which had an effect too.
    pub(crate) with_background: usize,
    /// The kinds that could not be injected, and why.
    pub(crate) left_out: Vec<(FaultKind, &'static str)>,
    pub(crate) writes: WriteTotals,
    pub(crate) checked: CheckTotals,
    /// The number of pauses at which everything was checked.
    pub(crate) pauses: usize,
    pub(crate) duration: Duration,
}

impl RunReport {
    /// The number of faults that had an effect.
    pub(crate) fn counted(&self) -> usize {
        self.kinds.values().map(|kind| kind.effects).sum()
    }
}

/// The median and the maximum, as text.
fn median_and_maximum(times: &[Duration]) -> (String, String) {
    let mut times = times.to_vec();
    times.sort_unstable();
    let seconds = |place: usize| {
        times.get(place).map_or("-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
    };
    (seconds(times.len() / 2), seconds(times.len().saturating_sub(1)))
}

impl fmt::Display for RunReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = String::new();
        writeln!(table, "| fault | injected | with an effect | recovery p50 | recovery max |")?;
        writeln!(table, "|---|---:|---:|---:|---:|")?;
        for (kind, of) in &self.kinds {
            let name = kind.name();
            let effects = of.effects;
            let (median, maximum) = median_and_maximum(&of.recoveries);
            writeln!(table, "| {name} | {} | {effects} | {median} | {maximum} |", of.injected)?;
        }
        let takeovers: Vec<Duration> =
            self.kinds.values().flat_map(|kind| kind.takeovers.iter().copied()).collect();
        let (median, maximum) = median_and_maximum(&takeovers);
        writeln!(
            table,
            "| from the freeze of a leader until another one published | | {} | {median} | {maximum} |",
            takeovers.len()
        )?;
        for (kind, why) in &self.left_out {
            writeln!(table, "| {} | left out: {why} | | | |", kind.name())?;
        }
        let WriteTotals { acknowledged, refused, unknown } = self.writes;
        let CheckTotals { versions, frames, buckets } = self.checked;
        write!(
            formatter,
            "{table}\n{} faults with an effect, {} of them while a link had a fault too, in {} s on Postgres {}, \
             seed {}; {acknowledged} writes acknowledged, {refused} refused or rolled back, {unknown} of unknown \
             outcome; {versions} versions in {frames} frames checked, {buckets} buckets compared; {} pauses",
            self.counted(),
            self.with_background,
            self.duration.as_secs(),
            self.postgres,
            self.seed,
            self.pauses
        )
    }
}
