//! Everything that a run puts to the test: Postgres on a disk of its own, the services, and a link between any two.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use domain::Version;
use futures_util::FutureExt;
use local_stack::postgres::{Cluster, ClusterSettings, Installation, Stop, free_port};
use local_stack::stack::{Instance, Part, Ports, Replicas, Stack, StackSettings, built_programs};
use migrate::settings::RoleSettings;
use postgres_kit::database::DatabaseSettings;
use secrecy::SecretString;
use serde_json::Value;
use tokio::task::block_in_place;

use crate::checker::Published;
use crate::clock::Clocks;
use crate::database::Database;
use crate::disk::Disk;
use crate::link::Link;
use crate::planted::Planted;

/// How long a service may take to be ready, and to stop.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How many clients a gateway takes: few, so that a fault can fill it.
pub const MAX_CLIENTS: usize = 64;

/// The superuser of the cluster, which nobody else can reach.
const USER: &str = "postgres";
const PASSWORD: &str = "chaos";
const DATABASE: &str = "newcycle";
const NOTIFIER_PASSWORD: &str = "chaos-notifier";

/// The file of the services' logs.
const LOGS: &str = "services.log";

/// Every version that a leader said it would publish.
pub type Publications = Arc<Mutex<HashMap<Version, Published>>>;

/// What services said that they must not.
type Wrong = Arc<Mutex<Vec<String>>>;

/// The running system. All of it ends when this is dropped.
pub struct System {
    /// The services.
    pub stack: Stack,
    /// A superuser's connection, which no fault but those of Postgres reaches.
    pub database: Database,
    /// Between any two parts.
    pub links: Vec<Arc<Link>>,
    /// Where ingest-api 1 and 2 are, by their links.
    pub ingest: Vec<String>,
    /// Where sse-gateway 1 and 2 are, by their links.
    pub gateways: Vec<String>,
    /// How producers reach Postgres, by their link.
    pub sql: tokio_postgres::Config,
    /// The services' clocks, where they can be set.
    pub clocks: Option<Clocks>,
    /// What the leaders said.
    pub published: Publications,
    wrong: Wrong,
    installation: Installation,
    settings: ClusterSettings,
    cluster: Option<Cluster>,
    /// Postgres's own, where one can be made; the last to go.
    pub disk: Option<Disk>,
    folder: PathBuf,
}

impl System {
    /// Starts all parts, and waits until they are ready. Every replica of a part is told these variables, too.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(
        installation: Installation,
        planted: Option<Planted>,
        variables: &[(Part, &'static str, &str)],
    ) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("newcycle-chaos-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let disk = Disk::make(&folder.join("disk"))?;
        let settings = ClusterSettings {
            folder: folder.join("disk/postgres"),
            port: free_port()?,
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            durable: true,
            // It is processes that crash here, not the machine: what the operating system was given is kept. Small, so
            // that the disk can be.
            parameters: [
                "fsync=off",
                "max_wal_size=96MB",
                "min_wal_size=32MB",
                "autovacuum_naptime=5s",
                "max_prepared_transactions=50",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        let cluster = block_in_place(|| Cluster::start(&installation, &settings))?;
        let database = DatabaseSettings {
            host: "127.0.0.1".to_owned(),
            port: settings.port,
            name: DATABASE.to_owned(),
            user: USER.to_owned(),
            password: SecretString::from(PASSWORD),
            connect_timeout: service_kit::settings::NonZeroDuration::from_millis(5_000),
        };
        let roles = RoleSettings {
            ingest_password: SecretString::from("chaos-ingest"),
            notifier_password: SecretString::from(NOTIFIER_PASSWORD),
        };
        migrate::migrate(&database, &roles).await?;
        let mut admin = Database::connect(config(settings.port)).await?;
        let programs = match planted {
            Some(planted) => planted.plant(&folder, admin.client().await?).await?,
            None => built_programs()?,
        };
        let ports = vec![Ports::free()?, Ports::free()?];
        let clocks = Clocks::make(&folder);
        let mut wires = Wires::make(&ports, settings.port, clocks.as_ref()).await?;
        let planted = planted.into_iter().flat_map(Planted::variables);
        let planted = planted.map(|(variable, value)| (Part::StatsNotifier, variable, value));
        let variables =
            variables.iter().map(|(part, variable, value)| (*part, *variable, (*value).to_owned()));
        for (part, variable, value) in planted.chain(variables) {
            let replicas = [1, 2].map(|number| (part.replica(number), variable, value.clone()));
            wires.variables.extend(replicas);
        }
        let (published, wrong) = (Publications::default(), Wrong::default());
        let stack = StackSettings {
            programs,
            database,
            roles,
            replicas: Replicas::TWO,
            ports,
            variables: wires.variables,
        };
        let stack =
            Stack::start(stack, logs(Arc::clone(&published), Arc::clone(&wrong), &folder.join(LOGS))?)?;
        let mut system = Self {
            stack,
            database: admin,
            links: wires.links.into_iter().map(Arc::new).collect(),
            ingest: wires.ingest,
            gateways: wires.gateways,
            sql: config(wires.sql),
            clocks,
            published,
            wrong,
            installation,
            settings,
            cluster: Some(cluster),
            disk,
            folder,
        };
        for instance in system.stack.instances() {
            system.stack.until_ready(instance, PATIENCE).await?;
        }
        Ok(system)
    }

    /// The stats-notifier that leads, once one says so.
    ///
    /// # Errors
    /// None does.
    pub async fn leader(&self) -> anyhow::Result<Instance> {
        let client = reqwest::Client::new();
        let asked = async {
            loop {
                for number in [1, 2] {
                    let notifier = Part::StatsNotifier.replica(number);
                    let url = format!("{}/readyz", self.stack.internal_url(notifier));
                    let answer = client.get(url).timeout(Duration::from_millis(500)).send().await;
                    let Ok(Ok(text)) = (match answer {
                        Ok(answer) => Ok(answer.text().await),
                        Err(error) => Err(error),
                    }) else {
                        continue;
                    };
                    let report: Value = serde_json::from_str(&text).unwrap_or_default();
                    if report["detail"]["role"] == "leader" {
                        return notifier;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.context("no stats-notifier leads")
    }

    /// What the leaders have said until now.
    pub fn published(&self) -> MutexGuard<'_, HashMap<Version, Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port of the link to sse-gateway 1.
    ///
    /// # Errors
    /// There is none.
    pub fn gateway_port(&self) -> anyhow::Result<u16> {
        let link = self.links.iter().find(|link| link.url() == self.gateways[0]);
        Ok(link.context("there is no link to sse-gateway 1")?.port())
    }

    /// What must not be, whatever else happens: a service that panicked or ended by itself, or one version of two
    /// snapshots.
    pub fn unwell(&mut self) -> Option<String> {
        if let Some(ended) = self.stack.ended().now_or_never() {
            return Some(format!("a service ended by itself: {ended}"));
        }
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }

    /// Who published last.
    #[must_use]
    pub fn newest_leader(&self) -> Option<Instance> {
        self.published().values().max_by_key(|published| published.at).map(|published| published.by)
    }

    /// Runs a subcommand of stats-notifier beside those that run, with further variables. Returns whether it succeeded.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn run_notifier(&self, subcommand: &str, variables: &[(&str, &str)]) -> anyhow::Result<bool> {
        let mut command = tokio::process::Command::new(built_programs()?.join(Part::StatsNotifier.name()));
        command.arg(subcommand).env("PGHOST", "127.0.0.1").env("PGPORT", self.settings.port.to_string());
        command.env("PGDATABASE", DATABASE).env("NEWCYCLE__DATABASE__PASSWORD", NOTIFIER_PASSWORD);
        command
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        Ok(command.status().await.with_context(|| format!("running stats-notifier {subcommand}"))?.success())
    }

    /// Stops Postgres.
    pub fn stop_postgres(&mut self, way: Stop) {
        if let Some(mut cluster) = self.cluster.take() {
            block_in_place(|| cluster.stop_in(way));
        }
    }

    /// Whether Postgres runs.
    pub fn postgres_runs(&mut self) -> bool {
        self.cluster.as_mut().is_some_and(Cluster::runs)
    }

    /// Starts Postgres, which recovers.
    ///
    /// # Errors
    /// It does not.
    pub fn start_postgres(&mut self) -> anyhow::Result<()> {
        self.cluster = None;
        self.cluster = Some(block_in_place(|| Cluster::start(&self.installation, &self.settings))?);
        Ok(())
    }

    /// The end of Postgres's log.
    #[must_use]
    pub fn postgres_log(&self) -> String {
        let log = std::fs::read_to_string(self.settings.folder.join("postgres.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Where the services' logs are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.folder.join(LOGS)
    }

    /// Lets everything finish; the logs stay. Returns which services did not end well.
    pub async fn stop(mut self) -> Vec<Instance> {
        let unwell = self.stack.stop(PATIENCE).await;
        drop(self.database);
        if let Some(mut cluster) = self.cluster.take() {
            block_in_place(|| cluster.stop());
        }
        unwell
    }

    /// Removes what a system that has stopped left beside its [logs](System::logs), and these.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(logs: &Path) -> anyhow::Result<()> {
        let folder = logs.parent().context("logs without a folder")?;
        std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))
    }
}

/// How a superuser reaches the database by a port.
fn config(port: u16) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(USER).password(PASSWORD).dbname(DATABASE);
    config.connect_timeout(Duration::from_secs(3)).application_name("chaos");
    config
}

/// Takes from the leaders' logs which snapshot each version shows, and writes down everything else.
fn logs(published: Publications, wrong: Wrong, file: &Path) -> anyhow::Result<local_stack::stack::Log> {
    let file = std::fs::File::create(file).with_context(|| format!("making {}", file.display()))?;
    Ok(Arc::new(move |instance, line: &str| {
        let say = |what: String| wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        if line.contains("panicked") {
            say(format!("{instance} panicked: {line}"));
        }
        if !line.contains("\"publishing\"") {
            // Only for people who look for the reason of a violation.
            let _disk_full = writeln!(&file, "{instance} | {line}");
            return;
        }
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        if let (Ok(version), Ok(snapshot)) = (text("version").parse(), text("snapshot").parse()) {
            let publication = Published { snapshot, at: SystemTime::now(), by: instance };
            let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(before) = published.insert(version, publication) {
                say(format!("{version} was published twice, by {} and {instance}", before.by));
            }
        }
    }))
}

/// The links, and what they make of the services' settings.
struct Wires {
    links: Vec<Link>,
    ingest: Vec<String>,
    gateways: Vec<String>,
    sql: u16,
    variables: Vec<(Instance, &'static str, String)>,
}

impl Wires {
    async fn make(ports: &[Ports], postgres: u16, clocks: Option<&Clocks>) -> anyhow::Result<Self> {
        let (mut links, mut variables) = (Vec::new(), Vec::new());
        let (mut ingest, mut gateways) = (Vec::new(), Vec::new());
        for (number, own) in (1..).zip(ports) {
            let [api, notifier, gateway] =
                [Part::IngestApi, Part::StatsNotifier, Part::SseGateway].map(|part| part.replica(number));
            for service in [api, notifier] {
                let link = Link::to(format!("{service} to Postgres"), postgres).await?;
                variables.push((service, "PGPORT", link.port().to_string()));
                links.push(link);
            }
            let mut upstreams = Vec::new();
            for (other, of) in (1..).zip(ports) {
                let upstream = Part::StatsNotifier.replica(other);
                let link = Link::to(format!("{gateway} to {upstream}"), of.stats_notifier).await?;
                upstreams.push(link.url());
                links.push(link);
            }
            variables.push((gateway, "NEWCYCLE__UPSTREAM__ADDRESSES", upstreams.join(",")));
            let link = Link::to(format!("producers to {api}"), own.ingest_api).await?;
            ingest.push(link.url());
            links.push(link);
            let link = Link::to(format!("subscribers to {gateway}"), own.sse_gateway).await?;
            gateways.push(link.url());
            links.push(link);
            let debug = "info,actix_server=warn,stats_notifier=debug".to_owned();
            variables.extend([
                (notifier, "NEWCYCLE__LOG__FILTER", debug),
                (notifier, "NEWCYCLE__LOG__FORMAT", "json".to_owned()),
                (gateway, "NEWCYCLE__STREAM__MAX_CLIENTS", MAX_CLIENTS.to_string()),
                // Its clients are few.
                (gateway, "NEWCYCLE__HTTP__DRAIN", "1s".to_owned()),
            ]);
            if let Some(clocks) = clocks {
                for service in [api, notifier, gateway] {
                    let clock = clocks.variables(service)?.into_iter();
                    variables.extend(clock.map(|(variable, value)| (service, variable, value)));
                }
            }
        }
        let link = Link::to("producers to Postgres".to_owned(), postgres).await?;
        let sql = link.port();
        links.push(link);
        Ok(Self { links, ingest, gateways, sql, variables })
    }
}

/// Runs a program that must succeed.
///
/// # Errors
/// It does not; says what it wrote.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("{program} could not be run"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A path as text, for arguments.
pub(crate) fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}
