//! What a run did, in a table.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use crate::checker::Checked;
use crate::fault::Kind;
use crate::history::Totals;

/// What became of the faults of one kind.
#[derive(Debug, Default, Clone)]
pub struct OfKind {
    /// Inflicted.
    pub inflicted: usize,
    /// Those that had an effect.
    pub effects: usize,
    /// From the end of such a fault until a write made then was acknowledged and shown, unless the next fault did not wait
    /// for that, or a link was in trouble as well.
    pub recoveries: Vec<Duration>,
    /// How long it took until a frozen leader was replaced.
    pub takeovers: Vec<Duration>,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    /// The version of Postgres.
    pub postgres: String,
    /// The seed of its schedule.
    pub seed: u64,
    /// By kind.
    pub kinds: BTreeMap<Kind, OfKind>,
    /// Of the faults that had an effect, those while a link was in trouble as well, which had one too.
    pub together: usize,
    /// Kinds that could not be inflicted, and why.
    pub left_out: Vec<(Kind, &'static str)>,
    /// What producers asked for.
    pub writes: Totals,
    /// What was checked.
    pub checked: Checked,
    /// Rests, at which all was checked.
    pub rests: usize,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Faults that had an effect.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.kinds.values().map(|kind| kind.effects).sum()
    }
}

/// The median and the maximum, in words.
fn middle_and_longest(times: &[Duration]) -> (String, String) {
    let mut times = times.to_vec();
    times.sort_unstable();
    let seconds =
        |place: usize| times.get(place).map_or("-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()));
    (seconds(times.len() / 2), seconds(times.len().saturating_sub(1)))
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = String::new();
        writeln!(table, "| fault | inflicted | with an effect | recovery p50 | recovery max |")?;
        writeln!(table, "|---|---:|---:|---:|---:|")?;
        for (kind, of) in &self.kinds {
            let (name, effects) = (kind.name(), of.effects);
            let (middle, longest) = middle_and_longest(&of.recoveries);
            writeln!(table, "| {name} | {} | {effects} | {middle} | {longest} |", of.inflicted)?;
        }
        let takeovers: Vec<Duration> =
            self.kinds.values().flat_map(|kind| kind.takeovers.iter().copied()).collect();
        let (middle, longest) = middle_and_longest(&takeovers);
        writeln!(
            table,
            "| from the freeze of a leader until another published | | {} | {middle} | {longest} |",
            takeovers.len()
        )?;
        for (kind, why) in &self.left_out {
            writeln!(table, "| {} | left out: {why} | | | |", kind.name())?;
        }
        let Totals { acknowledged, refused, unknown } = self.writes;
        let Checked { versions, frames, buckets } = self.checked;
        write!(
            formatter,
            "{table}\n{} faults with an effect, {} of them with trouble on a link meanwhile, in {} s on Postgres {}, seed {}; {acknowledged} writes acknowledged, {refused} refused or rolled \
             back, {unknown} of unknown outcome; {versions} versions in {frames} frames checked, {buckets} buckets compared; \
             {} rests",
            self.counted(),
            self.together,
            self.took.as_secs(),
            self.postgres,
            self.seed,
            self.rests
        )
    }
}
