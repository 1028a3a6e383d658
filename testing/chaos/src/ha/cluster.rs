//! Three nodes with Postgres under Patroni, and what they say about themselves.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use postgres_kit::database::DatabaseSettings;
use postgres_kit::tls::SslMode;
use serde::Deserialize;
use serde_json::json;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config, NoTls};

use super::namespace::Unprivileged;
use super::network::{self, NODES, address};
use super::node::Node;
use super::settings::{ClusterSettings, PASSWORD, PATRONI_PORT, POSTGRES_PORT, SUPERUSER};
use crate::wait::until;

/// How long the cluster may take to become healthy: a node may have to copy all data.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(180);

/// How long the cluster may take until a primary accepts writes again. Several times `ttl`, because
/// the machine may be busy.
const PRIMARY_TIMEOUT: Duration = Duration::from_secs(120);

/// How long one request to a node may take. A node that is cut off does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a switchover may take.
const SWITCHOVER_TIMEOUT: Duration = Duration::from_secs(120);

/// The cluster. All of it ends with the namespaces of the run at the latest.
pub(super) struct PatroniCluster {
    nodes: Vec<Node>,
    synchronous: bool,
    http: reqwest::Client,
}

/// A member of the cluster, as Patroni describes it.
#[derive(Debug, Deserialize)]
struct Member {
    name: String,
    role: String,
}

#[derive(Debug, Deserialize)]
struct Members {
    members: Vec<Member>,
}

/// Whether the cluster can take any fault, and if not, why.
#[derive(Debug, Default)]
struct Health {
    primary: Option<u8>,
    /// The standbys that stream from the primary.
    streaming: usize,
    /// Those that commits wait for.
    synchronous: usize,
    /// The members that Patroni knows, with their roles.
    members: String,
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { primary, streaming, synchronous, members } = self;
        match primary {
            Some(node) => write!(formatter, "node {node} is the primary")?,
            None => write!(formatter, "no node is the primary")?,
        }
        write!(formatter, ", {streaming} standbys stream, {synchronous} synchronously; {members}")
    }
}

impl PatroniCluster {
    /// Starts a new cluster in a folder, and waits until it is healthy.
    pub(super) async fn start(
        folder: &Path,
        logs: &Path,
        settings: &ClusterSettings,
        user: &Unprivileged,
    ) -> anyhow::Result<Self> {
        network::make_bridge()?;
        let nodes = NODES.iter().map(|number| Node::create(*number, folder, logs, settings, user));
        let mut cluster = Self {
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            synchronous: settings.synchronous,
            http: service_kit::client::internal().timeout(ANSWER_TIMEOUT).build()?,
        };
        for node in &mut cluster.nodes {
            node.start()?;
        }
        cluster.until_healthy().await?;
        Ok(cluster)
    }

    /// A node, by its number.
    pub(super) fn node(&mut self, number: u8) -> anyhow::Result<&mut Node> {
        let place = NODES.iter().position(|node| *node == number);
        self.nodes.get_mut(place.context("no such node")?).context("no such node")
    }

    /// How a service or `migrate` connects to a database, by the list of all nodes.
    pub(super) fn database(name: &str) -> DatabaseSettings {
        DatabaseSettings {
            host: network::all_addresses().as_str().into(),
            sslmode: Some(SslMode::Disable),
            ..DatabaseSettings::local(POSTGRES_PORT, name, SUPERUSER, PASSWORD)
        }
    }

    /// How a superuser connects to a database on the node that accepts writes.
    pub(super) fn superuser(name: &str) -> Config {
        let mut config = Config::new();
        config
            .port(POSTGRES_PORT)
            .user(SUPERUSER)
            .password(PASSWORD)
            .dbname(name)
            .application_name("chaos")
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(Duration::from_secs(1))
            // A node that is cut off must not hold a query up for long.
            .tcp_user_timeout(ANSWER_TIMEOUT);
        for node in NODES {
            config.host(address(node));
        }
        config
    }

    /// The node that accepts writes, if there is one.
    pub(super) async fn primary(&self) -> Option<u8> {
        primary().await.ok().map(|(node, _)| node)
    }

    /// Waits until a node accepts writes, other than `except`.
    pub(super) async fn until_primary(&self, except: Option<u8>) -> anyhow::Result<u8> {
        let mut primary = None;
        let found = until(PRIMARY_TIMEOUT, async || {
            primary = self.primary().await.filter(|node| Some(*node) != except);
            Ok(primary.is_some())
        });
        let found = found.await?;
        let seconds = PRIMARY_TIMEOUT.as_secs();
        let health = self.health().await;
        ensure!(found, "no other node accepted writes within {seconds} s: {health}");
        primary.context("the primary is known")
    }

    /// Waits until all nodes are there, and the standbys have what the primary has.
    pub(super) async fn until_healthy(&self) -> anyhow::Result<()> {
        let mut health = Health::default();
        let expected = usize::from(self.synchronous);
        let healthy = until(HEALTHY_TIMEOUT, async || {
            health = self.health().await;
            Ok(health.streaming == NODES.len() - 1 && health.synchronous == expected)
        });
        if !healthy.await? {
            let seconds = HEALTHY_TIMEOUT.as_secs();
            bail!("the cluster was not healthy within {seconds} s: {health}");
        }
        Ok(())
    }

    /// Waits until the standbys have everything that the primary has written until now.
    pub(super) async fn until_replicated(&self) -> anyhow::Result<()> {
        let (_, client) = primary().await?;
        let written: String =
            client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
        let behind = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= '{written}'::pg_lsn"
        );
        let replicated = until(HEALTHY_TIMEOUT, async || {
            let standbys: i64 = client.query_one(&behind, &[]).await?.get(0);
            Ok(standbys == 2)
        });
        ensure!(replicated.await?, "the standbys did not receive what was written before a fault");
        Ok(())
    }

    /// Makes a standby the primary in an orderly way.
    pub(super) async fn switch_over(&self, primary: u8) -> anyhow::Result<()> {
        let url = format!("http://{}:{PATRONI_PORT}/switchover", address(primary));
        let body = json!({ "leader": format!("node{primary}") }).to_string();
        let request = self.http.post(url).body(body).timeout(SWITCHOVER_TIMEOUT);
        let answer = request.send().await.context("requesting a switchover")?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        ensure!(status.is_success(), "Patroni refused a switchover: {status} {text}");
        Ok(())
    }

    async fn health(&self) -> Health {
        let mut health =
            Health { members: "Patroni does not answer".to_owned(), ..Health::default() };
        let Ok((node, client)) = primary().await else { return health };
        health.primary = Some(node);
        let count = "SELECT count(*), count(*) FILTER (WHERE sync_state = 'sync')
            FROM pg_stat_replication WHERE state = 'streaming'";
        if let Ok(row) = client.query_one(count, &[]).await {
            let number = |column| usize::try_from(row.get::<_, i64>(column)).unwrap_or(0);
            health.streaming = number(0);
            health.synchronous = number(1);
        }
        let url = format!("http://{}:{PATRONI_PORT}/cluster", address(node));
        let Ok(answer) = self.http.get(url).send().await else { return health };
        let text = answer.text().await.unwrap_or_default();
        let Ok(Members { members }) = serde_json::from_str(&text) else { return health };
        let roles = members.iter().map(|member| format!("{}: {}", member.name, member.role));
        health.members = roles.collect::<Vec<_>>().join(", ");
        // Patroni promotes only a standby that it has recorded as synchronous, and only a member
        // that it knows.
        let recorded = members.iter().filter(|member| member.role == "sync_standby").count();
        health.synchronous = health.synchronous.min(recorded);
        health.streaming = health.streaming.min(members.len().saturating_sub(1));
        health
    }
}

impl Drop for PatroniCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // It may have ended.
            let _ended = node.kill();
        }
        let _none = network::remove_bridge();
    }
}

/// Connects to the node that accepts writes.
async fn primary() -> anyhow::Result<(u8, Client)> {
    let connecting = PatroniCluster::superuser("postgres").connect(NoTls).await;
    let (client, connection) = connecting.context("connecting to the node that accepts writes")?;
    tokio::spawn(connection);
    let row = client.query_one("SELECT host(inet_server_addr())", &[]).await?;
    let at: &str = row.get(0);
    let node = NODES.into_iter().find(|node| address(*node) == at);
    Ok((node.with_context(|| format!("{at} is no node"))?, client))
}
