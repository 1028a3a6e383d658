//! Measures the resources of processes and tables once a second while everything else runs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;
use local_stack::stack::{Instance, ServiceKind};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::system::System;

/// The interval between two measurements.
const INTERVAL: Duration = Duration::from_secs(1);

/// Fewer values prove nothing about growth.
const SAMPLES_MIN: usize = 16;

/// How much the median of the last quarter of the time may exceed that of the second quarter: by a
/// share, plus an amount for small values.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    share: f64,
    amount: f64,
}

/// The values of one quantity, in the order of time.
#[derive(Debug)]
struct Series {
    tolerance: Tolerance,
    values: Vec<f64>,
}

/// All values, by the name of the quantity.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<String, Series>);

const MEGABYTE: f64 = 1_048_576.0;

const SIZES: &str = "
    SELECT
        pg_total_relation_size('count_log'),
        pg_total_relation_size('rollup_cursor'),
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
        (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'rollup'),
        pg_total_relation_size('rollup')::float8 / greatest((SELECT count(*) FROM rollup), 1)";

/// A task that measures until it is stopped.
pub(super) struct Sampler {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<anyhow::Result<Samples>>,
}

impl Sampler {
    /// Measures all processes that run now, except the gateway that the soak restarts.
    pub(super) async fn start(system: &System) -> anyhow::Result<Self> {
        // A fault may terminate this session, so it must be opened again by itself.
        let mut database = system.database.reconnecting_session().await?;
        let processes = system.stack.process_ids();
        let processes: Vec<(Instance, u32)> = processes
            .filter(|(instance, _)| *instance != ServiceKind::SseGateway.replica(2))
            .collect();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = tokio::spawn(async move {
            let mut samples = Samples::default();
            let mut pace = tokio::time::interval(INTERVAL);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !stopped.is_cancelled() {
                pace.tick().await;
                samples.measure(&mut database, &processes).await?;
            }
            Ok(samples)
        });
        Ok(Self { stop, running })
    }

    /// Stops measuring, and returns the values.
    pub(super) async fn stop(self) -> anyhow::Result<Samples> {
        self.stop.cancel();
        self.running.await?
    }
}

impl Samples {
    async fn measure(
        &mut self,
        database: &mut Database,
        processes: &[(Instance, u32)],
    ) -> anyhow::Result<()> {
        for (instance, process_id) in processes {
            let name = format!("{} {}", instance.service.name(), instance.number);
            let status = std::fs::read_to_string(format!("/proc/{process_id}/status"))?;
            let field = |field: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(field))?;
                line.split_whitespace().next()?.parse::<f64>().ok()
            };
            let resident = field("VmRSS:").context("a process has no memory")? / 1_024.0;
            let threads = field("Threads:").context("a process has no threads")?;
            self.add(
                &format!("{name}: memory, MB"),
                resident,
                Tolerance { share: 0.1, amount: 6.0 },
            );
            self.add(&format!("{name}: threads"), threads, Tolerance { share: 0.0, amount: 2.0 });
            let open = open_descriptors(*process_id)? as f64;
            self.add(&format!("{name}: descriptors"), open, Tolerance { share: 0.2, amount: 16.0 });
        }
        let row = database.client().await?.query_one(SIZES, &[]).await?;
        let amount = |place: usize| row.get::<_, i64>(place) as f64;
        // Purged rows leave space that autovacuum frees every few seconds.
        self.add("count_log, MB", amount(0) / MEGABYTE, Tolerance { share: 0.5, amount: 4.0 });
        self.add("rollup_cursor, MB", amount(1) / MEGABYTE, Tolerance { share: 0.25, amount: 0.5 });
        self.add("connections to Postgres", amount(2), Tolerance { share: 0.1, amount: 8.0 });
        self.add("rollup, dead rows", amount(3), Tolerance { share: 1.0, amount: 20_000.0 });
        // The table itself grows as it should, because each second with events has a row.
        self.add("rollup, bytes a row", row.get(4), Tolerance { share: 0.25, amount: 100.0 });
        Ok(())
    }

    fn add(&mut self, name: &str, value: f64, tolerance: Tolerance) {
        let series = Series { tolerance, values: Vec::new() };
        self.0.entry(name.to_owned()).or_insert(series).values.push(value);
    }

    /// What grew beyond its tolerance, or was not measured often enough.
    pub(super) fn grown(&self) -> Vec<String> {
        if self.0.is_empty() || self.0.values().any(|series| series.values.len() < SAMPLES_MIN) {
            return vec![format!(
                "too little was measured: each value is needed at least {SAMPLES_MIN} times"
            )];
        }
        let grown = self.0.iter().filter_map(|(name, Series { tolerance, values })| {
            let (second, last) = quarters(values)?;
            let most = second * (1.0 + tolerance.share) + tolerance.amount;
            (last > most)
                .then(|| format!("{name}: {second:.1}, then {last:.1}; the limit is {most:.1}"))
        });
        grown.collect()
    }

    /// All quantities, as a table.
    pub(super) fn table(&self) -> String {
        let mut table = "| | second quarter | last quarter |\n|---|---:|---:|\n".to_owned();
        for (name, Series { values, .. }) in &self.0 {
            if let Some((second, last)) = quarters(values) {
                // Writing to a string cannot fail.
                let _written = writeln!(table, "| {name} | {second:.1} | {last:.1} |");
            }
        }
        table
    }
}

/// The medians of the second and of the last quarter. `None` if there are too few values.
fn quarters(values: &[f64]) -> Option<(f64, f64)> {
    let quarter = values.len() / 4;
    let median = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some((median(&values[quarter..quarter * 2])?, median(&values[values.len() - quarter..])?))
}

/// The number of file descriptors that all replicas of a service have open together, because a
/// leader has more than a standby.
pub(super) fn descriptors(system: &System) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut open = BTreeMap::new();
    for (instance, process_id) in system.stack.process_ids() {
        *open.entry(instance.service.name().to_owned()).or_default() +=
            open_descriptors(process_id)?;
    }
    Ok(open)
}

fn open_descriptors(process_id: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{process_id}/fd"))?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_series_is_reported_and_a_varying_one_is_not() {
        let mut samples = Samples::default();
        let tolerance = Tolerance { share: 0.1, amount: 1.0 };
        for value in 0..100_i32 {
            samples.add("leak", f64::from(value), tolerance);
            samples.add("flat", 50.0 + f64::from(value % 3), tolerance);
        }
        let grown = samples.grown();
        assert_eq!(grown.len(), 1, "{grown:?}");
        assert!(grown[0].starts_with("leak: 37.0, then 87.0"), "{grown:?}");
        assert!(
            !Samples::default().grown().is_empty(),
            "a run without measurements proves nothing"
        );
    }
}
