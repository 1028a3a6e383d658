//! The faults of the cluster, and how each is ended.

use std::time::Duration;

use anyhow::ensure;

use super::network;
use super::system::HaSystem;
use crate::wait::until;
use crate::world::TestWorld;

/// How long producers may take to have the writes acknowledged that a fault loses.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of writes that are acknowledged while the standbys receive nothing.
const WRITES_BEHIND: u64 = 50;

/// A fault of the cluster. Each affects the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum HaFault {
    /// All processes of the node are killed at once, and the node starts again later.
    KillNode,
    /// The same, after its standbys have received nothing for a while. Only without synchronous
    /// replication: with it, nothing is acknowledged meanwhile.
    KillNodeAhead,
    /// The first process of Postgres is killed. Patroni and etcd go on.
    KillPostmaster,
    /// An operator makes a standby the primary.
    Switchover,
    /// The node is silent, and later returns as it is.
    Cut,
}

/// What a fault left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeState {
    Runs,
    Killed,
    CutOff,
}

impl HaFault {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::KillNode => "kill -9 of the primary's node",
            Self::KillNodeAhead => "kill -9 of the node while its standbys are behind",
            Self::KillPostmaster => "kill -9 of the postmaster",
            Self::Switchover => "switchover",
            Self::Cut => "the primary's node cut off, then healed",
        }
    }

    /// Whether the fault can occur with this kind of replication.
    pub(super) const fn occurs(self, synchronous: bool) -> bool {
        !(synchronous && matches!(self, Self::KillNodeAhead))
    }

    /// Whether another node must become the primary.
    pub(super) const fn moves_primary(self) -> bool {
        !matches!(self, Self::KillPostmaster)
    }

    /// Injects the fault into the node, which is the primary.
    pub(super) async fn inject(
        self,
        system: &mut HaSystem,
        world: &TestWorld,
        primary: u8,
    ) -> anyhow::Result<NodeState> {
        match self {
            Self::KillNode => {
                system.cluster.node(primary)?.kill()?;
                Ok(NodeState::Killed)
            }
            Self::KillNodeAhead => {
                let senders = "SELECT pid FROM pg_stat_replication";
                let senders = system.database.client().await?.query(senders, &[]).await?;
                let senders: Vec<i32> = senders.iter().map(|row| row.get(0)).collect();
                let node = system.cluster.node(primary)?;
                node.signal("STOP", &senders)?;
                let acknowledged = || world.history.totals().acknowledged;
                let before = acknowledged();
                let ahead =
                    until(WRITE_TIMEOUT, async || Ok(acknowledged() >= before + WRITES_BEHIND));
                ensure!(ahead.await?, "no writes were acknowledged while no standby received any");
                node.kill()?;
                Ok(NodeState::Killed)
            }
            Self::KillPostmaster => {
                let node = system.cluster.node(primary)?;
                node.signal("KILL", &[node.postmaster()?])?;
                Ok(NodeState::Runs)
            }
            Self::Switchover => {
                system.cluster.switch_over(primary).await?;
                Ok(NodeState::Runs)
            }
            Self::Cut => {
                network::cut(primary)?;
                Ok(NodeState::CutOff)
            }
        }
    }
}

/// Brings the node of a fault back.
pub(super) fn end(system: &mut HaSystem, node: u8, state: NodeState) -> anyhow::Result<()> {
    match state {
        NodeState::Runs => Ok(()),
        NodeState::Killed => system.cluster.node(node)?.start(),
        NodeState::CutOff => network::heal(node),
    }
}
