//! The settings of the cluster, as an operator sets them; docs/high-availability.md has reasons.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use local_stack::postgres::Installation;
use serde_json::{Value, json};

use super::namespace::succeed;
use super::network::{NODES, address};

/// The port of Postgres on each node.
pub(super) const POSTGRES_PORT: u16 = 5432;

/// The port of Patroni's REST interface on each node.
pub(super) const PATRONI_PORT: u16 = 8008;

/// The superuser of the cluster.
pub(super) const SUPERUSER: &str = "postgres";

/// The password of all roles of the cluster. Nobody else can reach its network.
pub(super) const PASSWORD: &str = "ha";

/// From this version on, Patroni accepts no `ttl` below 20 s.
const LONG_TTL_SINCE: (u32, u32, u32) = (3, 1, 0);

/// Before this version, Patroni overwrites the lock of another leader if it uses version 3 of
/// etcd's interface: <https://github.com/patroni/patroni/pull/2689>. A node that was cut off then
/// leads again when it returns, with its old data.
const ETCD3_SINCE: (u32, u32, u32) = (3, 0, 3);

/// How the cluster is set up.
#[derive(Debug, Clone)]
pub(super) struct ClusterSettings {
    pub(super) synchronous: bool,
    programs: PathBuf,
    times: Times,
    /// Whether Patroni uses version 3 of etcd's interface.
    etcd3: bool,
    versions: String,
}

/// Patroni's times in seconds. The sum of `loop_wait` and two `retry_timeout` is at most `ttl`.
#[derive(Debug, Clone, Copy)]
struct Times {
    ttl: u32,
    loop_wait: u32,
    retry_timeout: u32,
}

impl ClusterSettings {
    /// The settings that suit the installed versions.
    pub(super) fn find(installation: &Installation, synchronous: bool) -> anyhow::Result<Self> {
        // patroni 3.0.2
        let patroni = succeed(Command::new("patroni").arg("--version"))?;
        let patroni = patroni.split_whitespace().last().unwrap_or_default().to_owned();
        let version = parse(&patroni).with_context(|| format!("Patroni's version {patroni}"))?;
        // etcd Version: 3.4.23
        let etcd = succeed(Command::new("etcd").arg("--version"))?;
        let etcd = etcd.lines().next().and_then(|line| line.split_whitespace().last());
        Ok(Self {
            synchronous,
            programs: installation.programs().to_owned(),
            times: Times::of(version),
            etcd3: version >= ETCD3_SINCE,
            versions: format!(
                "Postgres {}, Patroni {patroni}, etcd {}",
                installation.version(),
                etcd.unwrap_or_default()
            ),
        })
    }

    /// The folder of Postgres's programs.
    pub(super) fn programs(&self) -> &Path {
        &self.programs
    }

    /// The configuration of a node's etcd.
    pub(super) fn etcd(&self, node: u8, folder: &Path) -> Value {
        let peer = |node: u8| format!("http://{}:2380", address(node));
        let client = format!("http://{}:2379", address(node));
        let cluster: Vec<_> = NODES.iter().map(|of| format!("node{of}={}", peer(*of))).collect();
        json!({
            "name": format!("node{node}"),
            "data-dir": folder.join("etcd"),
            "listen-peer-urls": peer(node),
            "initial-advertise-peer-urls": peer(node),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "initial-cluster": cluster.join(","),
            // Otherwise a member that returns after it was cut off forces an election, and Patroni
            // demotes the primary if that takes longer than retry_timeout.
            "pre-vote": true,
            "enable-v2": !self.etcd3,
            // The machine is busy: members must not lose their leader because of that.
            "heartbeat-interval": 200,
            "election-timeout": 2000,
        })
    }

    /// The configuration of a node's Patroni.
    pub(super) fn patroni(&self, node: u8, folder: &Path, sockets: &Path, data: &Path) -> Value {
        let Times { ttl, loop_wait, retry_timeout } = self.times;
        let listen = |port: u16| format!("{}:{port}", address(node));
        let hosts = NODES.map(|of| format!("{}:2379", address(of)));
        let role = |name: &str| json!({ "username": name, "password": PASSWORD });
        json!({
            "scope": "newcycle",
            "name": format!("node{node}"),
            "restapi": { "listen": listen(PATRONI_PORT), "connect_address": listen(PATRONI_PORT) },
            (if self.etcd3 { "etcd3" } else { "etcd" }): { "hosts": hosts },
            "bootstrap": {
                "dcs": {
                    "ttl": ttl,
                    "loop_wait": loop_wait,
                    "retry_timeout": retry_timeout,
                    "synchronous_mode": self.synchronous,
                    // A standby that lags by more is never promoted.
                    "maximum_lag_on_failover": 64 << 20,
                    "postgresql": {
                        "use_pg_rewind": true,
                        "use_slots": true,
                        "parameters": {
                            "max_connections": 200,
                            // As the producers of chaos need it.
                            "max_prepared_transactions": 50,
                            // For pg_rewind.
                            "wal_log_hints": "on",
                            "wal_keep_size": "256MB",
                            // A primary that was cut off cannot stop before its standbys have
                            // received everything, or this time has passed.
                            "wal_sender_timeout": "10s",
                            "wal_receiver_timeout": "10s",
                            // Processes crash here, not the machine.
                            "fsync": "off",
                        },
                    },
                },
                "initdb": [{ "encoding": "UTF8" }, { "locale": "C" }],
            },
            "postgresql": {
                "listen": listen(POSTGRES_PORT),
                "connect_address": listen(POSTGRES_PORT),
                "bin_dir": self.programs,
                "data_dir": data,
                "pgpass": folder.join("pgpass"),
                "remove_data_directory_on_rewind_failure": true,
                "remove_data_directory_on_diverged_timelines": true,
                "parameters": { "unix_socket_directories": sockets },
                "pg_hba": [
                    "local all all trust",
                    "host all all 10.0.0.0/24 scram-sha-256",
                    "host replication all 10.0.0.0/24 scram-sha-256",
                ],
                "authentication": {
                    "superuser": role(SUPERUSER),
                    "replication": role("replicator"),
                },
            },
        })
    }
}

/// The settings and versions that the table of a run is next to.
impl fmt::Display for ClusterSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times { ttl, loop_wait, retry_timeout } = self.times;
        write!(
            formatter,
            "{}; ttl {ttl} s, loop_wait {loop_wait} s, retry_timeout {retry_timeout} s",
            self.versions
        )
    }
}

impl Times {
    /// The shortest that this version of Patroni accepts.
    fn of(version: (u32, u32, u32)) -> Self {
        if version < LONG_TTL_SINCE {
            Self { ttl: 8, loop_wait: 2, retry_timeout: 3 }
        } else {
            Self { ttl: 20, loop_wait: 2, retry_timeout: 9 }
        }
    }
}

/// A version of three numbers. What follows the third, such as a suffix, is ignored.
fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| {
        let digits = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse().ok()
    });
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_those_that_a_version_of_patroni_accepts() {
        for (version, ttl) in [("3.0.2", 8), ("3.0.3", 8), ("3.2.2", 20), ("4.0.6", 20)] {
            let times = Times::of(parse(version).unwrap());
            assert_eq!(times.ttl, ttl, "{version}");
            assert!(times.loop_wait + 2 * times.retry_timeout <= times.ttl, "{version}");
        }
        assert_eq!(parse("4.1.0rc1"), Some((4, 1, 0)));
        assert_eq!(parse("unknown"), None);
    }
}
