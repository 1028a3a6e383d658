//! CPU time and memory of processes, from `/proc`, and what events cost the database.
//!
//! Invariant: CPU times are differences of sums that only grow, so a process that ends meanwhile
//! keeps its share: its parent's times of ended children include it.

use std::collections::BTreeMap;

use anyhow::Context;
use local_stack::postgres::Cluster;
use local_stack::stack::Stack;
use serde::Serialize;
use tokio_postgres::Client;

/// Linux reports times to programs in this unit, whatever the kernel's own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// The times of a process, in seconds.
struct Times {
    parent: u32,
    own: f64,
    ended_children: f64,
}

/// CPU seconds of everything that takes part.
#[derive(Debug, Default, Clone)]
pub(super) struct CpuTime {
    /// The load generators: the children of this process that have ended.
    pub(super) client: f64,
    /// All processes of the cluster.
    pub(super) postgres: f64,
    /// Each service.
    pub(super) services: BTreeMap<&'static str, f64>,
}

/// Parts of one core that were busy, in percent.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct CpuShares {
    client: f64,
    postgres: f64,
    services: BTreeMap<&'static str, f64>,
}

impl CpuTime {
    /// The CPU time until now.
    pub(super) fn read(cluster: &Cluster, stack: &Stack) -> anyhow::Result<Self> {
        let services = stack
            .process_ids()
            .map(|(instance, process)| Ok((instance.service.name(), times(process)?.own)));
        Ok(Self {
            client: times(std::process::id())?.ended_children,
            postgres: postgres_cpu(cluster)?,
            services: services.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The time between an earlier reading and this one.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let services = self.services.iter().map(|(name, time)| {
            (*name, time - earlier.services.get(name).copied().unwrap_or_default())
        });
        Self {
            client: self.client - earlier.client,
            postgres: self.postgres - earlier.postgres,
            services: services.collect(),
        }
    }

    /// As parts of one core for this many seconds.
    pub(super) fn shares(&self, seconds: f64) -> CpuShares {
        let share = |time: f64| 100.0 * time / seconds;
        CpuShares {
            client: share(self.client),
            postgres: share(self.postgres),
            services: self.services.iter().map(|(name, time)| (*name, share(*time))).collect(),
        }
    }
}

impl CpuShares {
    /// The means of several measurements.
    pub(super) fn mean(all: &[Self]) -> Self {
        let mut mean = Self::default();
        #[expect(clippy::cast_precision_loss, reason = "the number of rounds is small")]
        let number = all.len() as f64;
        for shares in all {
            mean.client += shares.client / number;
            mean.postgres += shares.postgres / number;
            for (name, share) in &shares.services {
                *mean.services.entry(name).or_default() += share / number;
            }
        }
        mean
    }

    /// Each part with its name.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let first = [("client", self.client), ("Postgres", self.postgres)];
        first.into_iter().chain(self.services.iter().map(|(name, share)| (*name, *share)))
    }
}

/// What the database has done until now.
pub(super) struct DatabaseWork {
    cpu_seconds: f64,
    wal_bytes: i64,
    dead_tuples: i64,
}

/// What one event costs the database.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct EventCost {
    /// CPU time of all processes of the cluster, in µs.
    pub(super) cpu_us: f64,
    /// Bytes of write-ahead log.
    pub(super) wal_bytes: f64,
    /// Row versions that an UPDATE or DELETE left for vacuum, if all sessions have reported them.
    pub(super) dead_tuples: f64,
}

impl DatabaseWork {
    /// The work until now. Sessions report dead tuples some seconds late, or when they end.
    pub(super) async fn read(cluster: &Cluster, client: &Client) -> anyhow::Result<Self> {
        let statement = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, \
             (SELECT sum(n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables)";
        let row = client.query_one(statement, &[]).await?;
        Ok(Self {
            cpu_seconds: postgres_cpu(cluster)?,
            wal_bytes: row.get(0),
            dead_tuples: row.get(1),
        })
    }

    /// Reads the dead tuples again, which sessions have reported meanwhile.
    pub(super) async fn read_late_reports(
        &mut self,
        cluster: &Cluster,
        client: &Client,
    ) -> anyhow::Result<()> {
        self.dead_tuples = Self::read(cluster, client).await?.dead_tuples;
        Ok(())
    }

    /// The work since an earlier reading, by event, without `other_cpu`: CPU seconds that were
    /// spent on something else.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(super) fn cost_since(&self, earlier: &Self, events: f64, other_cpu: f64) -> EventCost {
        EventCost {
            cpu_us: (self.cpu_seconds - earlier.cpu_seconds - other_cpu) * 1e6 / events,
            wal_bytes: (self.wal_bytes - earlier.wal_bytes) as f64 / events,
            dead_tuples: (self.dead_tuples - earlier.dead_tuples) as f64 / events,
        }
    }
}

/// CPU seconds of a process.
pub(super) fn process_cpu(process: u32) -> anyhow::Result<f64> {
    Ok(times(process)?.own)
}

/// CPU seconds of the calling thread, to the nanosecond.
pub(super) fn thread_cpu() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat");
    let text = text.context("CPU times are read from /proc: this bench needs Linux")?;
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    Ok(nanoseconds.context("/proc/thread-self/schedstat has an unknown form")? / 1e9)
}

/// The memory of a process that is in RAM, in bytes.
pub(super) fn resident_bytes(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.context("memory is read from /proc: this bench needs Linux")?;
    resident(&status).context("/proc/…/status has an unknown form")
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

/// CPU seconds of all processes of a cluster, of those that have ended too.
pub(super) fn postgres_cpu(cluster: &Cluster) -> anyhow::Result<f64> {
    let postmaster = cluster.process_id();
    loop {
        let Times { own, ended_children, .. } = times(postmaster)?;
        let mut sum = own + ended_children;
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // Other processes may end at any time.
            if let Ok(times) = times(process)
                && times.parent == postmaster
            {
                sum += times.own;
            }
        }
        // If a process has ended meanwhile, its time may be in neither of the two, or in both.
        #[expect(clippy::float_cmp, reason = "the same text gives the same number")]
        if times(postmaster)?.ended_children == ended_children {
            return Ok(sum);
        }
    }
}

fn times(process: u32) -> anyhow::Result<Times> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.context("CPU times are read from /proc: this bench needs Linux")?;
    parse_times(&stat).context("/proc/…/stat has an unknown form")
}

/// Reads a line of `/proc/…/stat`. The name in it may have spaces and parentheses.
fn parse_times(stat: &str) -> Option<Times> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let seconds = |first: usize| {
        let user: f64 = fields.get(first)?.parse().ok()?;
        let system: f64 = fields.get(first + 1)?.parse().ok()?;
        Some((user + system) / TICKS_PER_SECOND)
    };
    Some(Times {
        parent: fields.get(1)?.parse().ok()?,
        own: seconds(11)?,
        ended_children: seconds(13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_with_any_name_are_read() {
        let stat = "7 (a ) b) S 3 7 7 0 -1 4194560 1 2 3 4 150 50 400 100 20 0 1 0 9 8 7";
        let times = parse_times(stat).expect("times");
        assert_eq!((times.parent, times.own, times.ended_children), (3, 2.0, 5.0));
        assert!(parse_times("7 (a) S 3").is_none());
    }

    #[test]
    fn the_memory_of_a_process_is_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
