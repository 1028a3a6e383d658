//! What processes and tables take, measured again and again.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Context;
use local_stack::stack::Part;

use crate::system::System;

/// How much more something may take in the last quarter of the time than in the second one, by the medians of both: a
/// share, and beside that an amount for what is small.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    share: f64,
    amount: f64,
}

/// What was measured, by name: its tolerance, and the values in the order of time.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<String, (Tolerance, Vec<f64>)>);

const MEGABYTE: f64 = 1_048_576.0;

impl Samples {
    /// Measures everything once.
    pub(super) async fn measure(&mut self, system: &mut System) -> anyhow::Result<()> {
        for (instance, process_id) in system.stack.process_ids() {
            // It is restarted now and then.
            if instance == Part::SseGateway.replica(2) {
                continue;
            }
            let name = format!("{} {}", instance.part.name(), instance.number);
            let status = std::fs::read_to_string(format!("/proc/{process_id}/status"))?;
            let field = |field: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(field))?;
                line.split_whitespace().next()?.parse::<f64>().ok()
            };
            let resident = field("VmRSS:").context("a process has no memory")? / 1_024.0;
            let threads = field("Threads:").context("a process has no threads")?;
            self.add(&format!("{name}: memory, MB"), resident, Tolerance { share: 0.1, amount: 6.0 });
            self.add(&format!("{name}: threads"), threads, Tolerance { share: 0.0, amount: 2.0 });
            let open = open_descriptors(process_id)? as f64;
            self.add(&format!("{name}: descriptors"), open, Tolerance { share: 0.2, amount: 16.0 });
        }
        let sizes = "SELECT pg_total_relation_size('count_log'), pg_total_relation_size('rollup_cursor'), \
             (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
             pg_total_relation_size('rollup')::float8 / greatest((SELECT count(*) FROM rollup), 1)";
        let row = system.database.client().await?.query_one(sizes, &[]).await?;
        let size = |place: usize| row.get::<_, i64>(place) as f64 / MEGABYTE;
        // Purged rows leave room that autovacuum finds once a minute.
        self.add("count_log, MB", size(0), Tolerance { share: 0.5, amount: 4.0 });
        self.add("rollup_cursor, MB", size(1), Tolerance { share: 0.25, amount: 0.5 });
        let connections = row.get::<_, i64>(2) as f64;
        self.add("connections to Postgres", connections, Tolerance { share: 0.1, amount: 8.0 });
        // Each second that has events has a row of its own, so the table itself grows as it should.
        self.add("rollup, bytes a row", row.get(3), Tolerance { share: 0.15, amount: 50.0 });
        Ok(())
    }

    fn add(&mut self, name: &str, value: f64, tolerance: Tolerance) {
        self.0.entry(name.to_owned()).or_insert_with(|| (tolerance, Vec::new())).1.push(value);
    }

    /// What grew beyond its tolerance, in words.
    pub(super) fn grown(&self) -> Vec<String> {
        let grown = self.0.iter().filter_map(|(name, (tolerance, values))| {
            let (second, last) = quarters(values)?;
            let most = second * (1.0 + tolerance.share) + tolerance.amount;
            (last > most)
                .then(|| format!("{name}: {second:.1}, then {last:.1}; at most {most:.1} would be flat"))
        });
        grown.collect()
    }

    /// What all took, for people.
    pub(super) fn table(&self) -> String {
        let mut table = "| | second quarter | last quarter |\n|---|---:|---:|\n".to_owned();
        for (name, (_, values)) in &self.0 {
            if let Some((second, last)) = quarters(values) {
                // Writing to a string does not fail.
                let _written = writeln!(table, "| {name} | {second:.1} | {last:.1} |");
            }
        }
        table
    }
}

/// The medians of the second and of the last quarter; nothing of too few values.
fn quarters(values: &[f64]) -> Option<(f64, f64)> {
    let quarter = values.len() / 4;
    let median = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some((median(&values[quarter..quarter * 2])?, median(&values[values.len() - quarter..])?))
}

/// How many descriptors each process has open, but for the one that is restarted.
pub(super) fn descriptors(system: &System) -> anyhow::Result<Vec<(String, usize)>> {
    let processes =
        system.stack.process_ids().filter(|(instance, _)| *instance != Part::SseGateway.replica(2));
    let open = processes.map(|(instance, process_id)| {
        let name = format!("{} {}", instance.part.name(), instance.number);
        Ok((name, open_descriptors(process_id)?))
    });
    open.collect()
}

fn open_descriptors(process_id: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{process_id}/fd"))?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_named_and_what_varies_is_not() {
        let mut samples = Samples::default();
        let tolerance = Tolerance { share: 0.1, amount: 1.0 };
        for value in 0..100_i32 {
            samples.add("leak", f64::from(value), tolerance);
            samples.add("flat", 50.0 + f64::from(value % 3), tolerance);
        }
        let grown = samples.grown();
        assert_eq!(grown.len(), 1, "{grown:?}");
        assert!(grown[0].starts_with("leak: 37.0, then 87.0"), "{grown:?}");
    }
}
