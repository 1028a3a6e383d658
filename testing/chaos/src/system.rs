//! Everything that a run tests: Postgres on a disk of its own, two of each service, and a link
//! between any two that connect.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use domain::Version;
use local_stack::internal;
use local_stack::ports::reserve_port;
use local_stack::postgres::{Cluster, ClusterSettings, Installation, StopMode};
use local_stack::stack::{
    Instance, Ports, Replicas, ServiceKind, Stack, StackSettings, Variable, built_programs,
};
use local_stack::test_database::{TestDatabase, store_test_key};
use parking_lot::MutexGuard;
use postgres_kit::database::DatabaseSettings;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::task::block_in_place;
use tokio_postgres::Config;

use crate::checker::Publication;
use crate::clock::Clocks;
use crate::database::Database;
use crate::disk::Disk;
use crate::observed::Observed;
use crate::planted::Planted;
use crate::service_log::{self, LogFindings};
use crate::wiring::Wiring;
use crate::world::TestWorld;

pub(crate) use crate::wiring::MAX_CLIENTS;

/// How long a service may take to become ready or to stop, and Postgres to recover.
pub(crate) const SERVICE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one stats-notifier may take to respond whether it leads.
const ROLE_TIMEOUT: Duration = Duration::from_millis(500);

const DATABASE: &str = "newcycle";

/// The file of the services' logs.
const LOGS: &str = "services.log";

/// The programs that a system begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Programs<'a> {
    /// Those that were built together with this one.
    Built,
    /// Those, with an error.
    Planted(Planted),
    /// Those of an older release, in this folder. They also make the schema.
    Older(&'a Path),
}

/// The running system. All of it ends when this is dropped.
pub(crate) struct System {
    pub(crate) stack: Stack,
    /// A superuser's connection without a link, so only faults of Postgres itself affect it.
    pub(crate) database: Database,
    pub(crate) wiring: Wiring,
    /// The services' clocks, if libfaketime is installed.
    pub(crate) clocks: Option<Clocks>,
    findings: LogFindings,
    installation: Installation,
    settings: ClusterSettings,
    cluster: Option<Cluster>,
    /// Postgres's disk, if one could be mounted. Dropped after the cluster.
    pub(crate) disk: Option<Disk>,
    folder: PathBuf,
}

impl System {
    /// Starts the system, and waits until it is ready. `variables` are set for every replica of
    /// their service.
    pub(crate) async fn start(
        installation: Installation,
        programs: Programs<'_>,
        variables: &[Variable<'_>],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("newcycle-chaos-").tempdir()?.keep();
        // Postgres runs as another user if this process is root's, and must be able to enter the
        // folder.
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&folder, everyone)
            .with_context(|| format!("opening {} to other users", folder.display()))?;
        let disk = Disk::make(&folder.join("disk"))?;
        let settings = ClusterSettings {
            folder: folder.join("disk/postgres"),
            port: reserve_port()?,
            user: "postgres".to_owned(),
            password: "chaos".to_owned(),
            durable: true,
            parameters: [
                // Processes crash here, not the machine: what the kernel was given is kept.
                "fsync=off",
                // Small, so that the disk can be.
                "max_wal_size=96MB",
                "min_wal_size=32MB",
                "autovacuum_naptime=5s",
                "max_prepared_transactions=50",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        let cluster = block_in_place(|| Cluster::start(&installation, &settings))?;
        let superuser = settings.database(DATABASE);
        match programs {
            Programs::Older(folder) => run_migrate(folder, &superuser, "run").await?,
            Programs::Built | Programs::Planted(_) => {
                migrate::migrate(&superuser, &TestDatabase::roles()).await?;
            }
        }
        store_test_key(&superuser).await?;
        let mut database = Database::connect(connection(&superuser, settings.port)).await?;
        let planted_variables = match programs {
            Programs::Planted(planted) => planted.variables(),
            Programs::Built | Programs::Older(_) => Vec::new(),
        };
        let programs = match programs {
            Programs::Built => built_programs()?,
            Programs::Planted(planted) => planted.plant(&folder, database.client().await?).await?,
            Programs::Older(folder) => folder.to_owned(),
        };
        let ports = vec![Ports::reserve()?, Ports::reserve()?];
        let clocks = Clocks::make(&folder);
        let (wiring, link_variables) =
            Wiring::create(&ports, settings.port, clocks.as_ref()).await?;
        let findings = LogFindings::default();
        let mut stack = StackSettings {
            programs,
            database: superuser,
            roles: TestDatabase::roles(),
            internal_secret: internal::secret_file(),
            replicas: Replicas::TWO,
            ports,
            variables: link_variables,
        };
        stack.set(&service_log::VARIABLES);
        stack.set(variables);
        for (service, variable, value) in planted_variables {
            stack.set(&[(service, variable, &value)]);
        }
        let stack = Stack::start(stack, findings.reader(&folder.join(LOGS))?)?;
        let mut system = Self {
            stack,
            database,
            wiring,
            clocks,
            findings,
            installation,
            settings,
            cluster: Some(cluster),
            disk,
            folder,
        };
        for instance in system.stack.instances() {
            system.stack.until_ready(instance, SERVICE_TIMEOUT).await?;
        }
        Ok(system)
    }

    /// Waits until a stats-notifier leads, and returns it.
    pub(crate) async fn leader(&self) -> anyhow::Result<Instance> {
        let client = internal::client();
        let leader = async {
            loop {
                for number in [1, 2] {
                    let notifier = ServiceKind::StatsNotifier.replica(number);
                    let url = format!("{}/readyz", self.stack.internal_url(notifier));
                    let Ok(response) = client.get(url).timeout(ROLE_TIMEOUT).send().await else {
                        continue;
                    };
                    let Ok(text) = response.text().await else { continue };
                    let report: Value = serde_json::from_str(&text).unwrap_or_default();
                    if report["detail"]["role"] == "leader" {
                        return notifier;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SERVICE_TIMEOUT, leader).await.context("no stats-notifier leads")
    }

    /// Every version that a leader has published, by its log.
    pub(crate) fn publications(&self) -> MutexGuard<'_, HashMap<Version, Publication>> {
        self.findings.publications()
    }

    /// The port of the link to sse-gateway 1.
    pub(crate) fn gateway_port(&self) -> anyhow::Result<u16> {
        let Wiring { links, gateways, .. } = &self.wiring;
        let link = links.iter().find(|link| link.url() == gateways[0]);
        Ok(link.context("there is no link to sse-gateway 1")?.port())
    }

    /// What the checks look at.
    pub(crate) fn observed(&mut self) -> Observed<'_> {
        let Self { stack, database, findings, .. } = self;
        Observed { stack, database, findings }
    }

    /// The stats-notifier that published last.
    pub(crate) fn newest_leader(&self) -> Option<Instance> {
        self.publications()
            .values()
            .max_by_key(|publication| publication.at)
            .map(|newest| newest.by)
    }

    /// Runs `migrate` of a folder of programs.
    pub(crate) async fn migrate(&self, programs: &Path, subcommand: &str) -> anyhow::Result<()> {
        run_migrate(programs, &self.settings.database(DATABASE), subcommand).await
    }

    /// Runs a subcommand of stats-notifier, with more environment variables. Returns whether it
    /// succeeded.
    pub(crate) async fn run_notifier(
        &self,
        subcommand: &str,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<bool> {
        let program = built_programs()?.join(ServiceKind::StatsNotifier.name());
        let mut command = tokio::process::Command::new(program);
        command
            .arg(subcommand)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.settings.port.to_string())
            .env("PGDATABASE", DATABASE)
            .env(
                "NEWCYCLE__DATABASE__PASSWORD",
                TestDatabase::roles().notifier_password.expose_secret(),
            )
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let status = command.status().await;
        Ok(status.with_context(|| format!("running stats-notifier {subcommand}"))?.success())
    }

    /// Stops Postgres, and waits until it has exited.
    pub(crate) fn stop_postgres(&mut self, mode: StopMode) {
        if let Some(mut cluster) = self.cluster.take() {
            block_in_place(|| cluster.stop_with(mode));
        }
    }

    /// Whether Postgres runs.
    pub(crate) fn postgres_runs(&mut self) -> bool {
        self.cluster.as_mut().is_some_and(Cluster::runs)
    }

    /// Starts Postgres, and waits until it has recovered.
    pub(crate) fn start_postgres(&mut self) -> anyhow::Result<()> {
        self.cluster = None;
        self.cluster = Some(block_in_place(|| Cluster::start(&self.installation, &self.settings))?);
        Ok(())
    }

    /// The world of producers that write through their links.
    pub(crate) async fn world(&self) -> anyhow::Result<TestWorld> {
        let linked = connection(&self.settings.database(DATABASE), self.wiring.sql);
        TestWorld::create(&self.database, self.wiring.ingest.clone(), linked).await
    }

    /// The last lines of Postgres's log.
    pub(crate) fn postgres_log(&self) -> String {
        self.settings.end_of_log(20)
    }

    /// The file of the services' logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.join(LOGS)
    }

    /// Stops everything; the logs stay. Returns the services that did not exit with success in
    /// time.
    pub(crate) async fn stop(mut self) -> Vec<Instance> {
        let failed = self.stack.stop(SERVICE_TIMEOUT).await;
        drop(self.database);
        if let Some(mut cluster) = self.cluster.take() {
            block_in_place(|| cluster.stop());
        }
        failed
    }

    /// Removes the [logs](System::logs) of a system that was stopped, and what else it left in
    /// their folder.
    pub(crate) fn remove(logs: &Path) -> anyhow::Result<()> {
        let folder = logs.parent().context("the logs are in no folder")?;
        std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))
    }
}

/// Runs `migrate` of a folder of programs on a database, as a superuser.
async fn run_migrate(
    programs: &Path,
    database: &DatabaseSettings,
    subcommand: &str,
) -> anyhow::Result<()> {
    let roles = TestDatabase::roles();
    let output = tokio::process::Command::new(programs.join("migrate"))
        .arg(subcommand)
        .env("PGHOST", database.host.to_string())
        .env("PGPORT", database.port.to_string())
        .env("PGDATABASE", &database.name)
        .env("PGUSER", &database.user)
        .env("PGPASSWORD", database.password.expose_secret())
        .env("NEWCYCLE__ROLES__INGEST_PASSWORD", roles.ingest_password.expose_secret())
        .env("NEWCYCLE__ROLES__NOTIFIER_PASSWORD", roles.notifier_password.expose_secret())
        .env("NEWCYCLE__ROLES__ACCESS_PASSWORD", roles.access_password.expose_secret())
        .kill_on_drop(true)
        .output();
    let program = programs.display();
    let output = tokio::time::timeout(SERVICE_TIMEOUT, output)
        .await
        .with_context(|| format!("migrate {subcommand} of {program} did not end"))??;
    ensure!(
        output.status.success(),
        "migrate {subcommand} of {program} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// How to connect as this role to a port of this machine, once and without a time limit.
fn connection(database: &DatabaseSettings, port: u16) -> Config {
    let mut config = database.connection("chaos");
    config.host("127.0.0.1").port(port);
    config
}
