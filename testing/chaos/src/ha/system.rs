//! What a case tests: the cluster, a way to its primary, and the services.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use local_stack::internal;
use local_stack::postgres::Installation;
use local_stack::stack::{
    Instance, Ports, Replicas, ServiceKind, Stack, StackSettings, built_programs,
};
use local_stack::test_database::{TestDatabase, store_test_key};
use postgres_kit::database::DatabaseSettings;
use tokio_postgres::Config;

use super::Route;
use super::cluster::PatroniCluster;
use super::haproxy::HaProxy;
use super::namespace::{Privilege, Unprivileged, run};
use super::settings::ClusterSettings;
use crate::database::Database;
use crate::observed::Observed;
use crate::run::UNITS_KEPT;
use crate::service_log::{self, LogFindings};
use crate::system::SERVICE_TIMEOUT;
use crate::world::TestWorld;

/// The database of the services.
pub(super) const DATABASE: &str = "newcycle";

/// Two of each service, as in production; one dashboard, because it has no part in this.
const REPLICAS: Replicas = Replicas { dashboard: 1, ..Replicas::TWO };

/// The running system. All of it ends when this is dropped: first the services.
pub(super) struct HaSystem {
    pub(super) stack: Stack,
    /// A superuser's connection to the primary.
    pub(super) database: Database,
    findings: LogFindings,
    _proxy: Option<HaProxy>,
    pub(super) cluster: PatroniCluster,
    pub(super) settings: ClusterSettings,
    pub(super) user: Unprivileged,
    producers: Config,
    /// Dropped after the cluster.
    _memory: Memory,
}

/// A disk in memory for the nodes: the machine does not lose power here. It is unmounted when this
/// is dropped.
struct Memory(PathBuf);

impl Memory {
    fn mount(folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir(&folder)?;
        let path = folder.to_str().context("the folder for temporary files is not UTF-8")?;
        run("mount", &["-t", "tmpfs", "newcycle-ha", path])?;
        Ok(Self(folder))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Lazily, because a process that is still exiting may have a file open.
        let _left_behind = run("umount", &["-l", self.0.to_str().unwrap_or_default()]);
    }
}

impl HaSystem {
    /// Starts everything in this folder, where the logs stay, and waits until it is ready.
    pub(super) async fn start(
        folder: &Path,
        privilege: Privilege,
        synchronous: bool,
        route: Route,
    ) -> anyhow::Result<Self> {
        let user = Unprivileged::find(privilege)?;
        let settings = ClusterSettings::find(&Installation::find()?, synchronous)?;
        let memory = Memory::mount(folder.join("nodes"))?;
        let cluster = PatroniCluster::start(&memory.0, folder, &settings, &user).await?;
        let proxy = match route {
            Route::HaProxy => Some(HaProxy::start(folder).await?),
            Route::List => None,
        };
        let listed = PatroniCluster::database(DATABASE);
        migrate::migrate(&listed, &TestDatabase::roles()).await?;
        store_test_key(&listed).await?;
        let superuser = PatroniCluster::superuser(DATABASE);
        let database = Database::connect(superuser.clone()).await?;
        let (database_of_services, producers) = match &proxy {
            Some(proxy) => (by_proxy(proxy.port), producers_by_proxy(proxy.port)),
            None => (listed, superuser),
        };
        let findings = LogFindings::default();
        let mut stack = StackSettings {
            programs: built_programs()?,
            database: database_of_services,
            roles: TestDatabase::roles(),
            internal_secret: internal::secret_file(),
            replicas: REPLICAS,
            ports: vec![Ports::reserve()?, Ports::reserve()?],
            variables: Vec::new(),
        };
        stack.set(&service_log::VARIABLES);
        stack.set(&UNITS_KEPT);
        // The nodes have no certificates.
        stack.set(&[
            (ServiceKind::IngestApi, "PGSSLMODE", "disable"),
            (ServiceKind::StatsNotifier, "PGSSLMODE", "disable"),
        ]);
        let stack = Stack::start(stack, findings.reader(&folder.join("services.log"))?)?;
        let mut system = Self {
            stack,
            database,
            findings,
            _proxy: proxy,
            cluster,
            settings,
            user,
            producers,
            _memory: memory,
        };
        for instance in system.stack.instances() {
            system.stack.until_ready(instance, SERVICE_TIMEOUT).await?;
        }
        Ok(system)
    }

    /// What the checks look at.
    pub(super) fn observed(&mut self) -> Observed<'_> {
        let Self { stack, database, findings, .. } = self;
        Observed { stack, database, findings }
    }

    /// The world of producers that reach Postgres in the same way as the services.
    pub(super) async fn world(&self) -> anyhow::Result<TestWorld> {
        let ingest = self.urls(ServiceKind::IngestApi, Stack::url);
        TestWorld::create(&self.database, ingest, self.producers.clone()).await
    }

    /// The base URLs of the gateways.
    pub(super) fn gateways(&self) -> Vec<String> {
        self.urls(ServiceKind::SseGateway, Stack::url)
    }

    /// The base URLs of the gateways' internal ports.
    pub(super) fn internal_gateways(&self) -> Vec<String> {
        self.urls(ServiceKind::SseGateway, Stack::internal_url)
    }

    fn urls(&self, service: ServiceKind, url: fn(&Stack, Instance) -> String) -> Vec<String> {
        [1, 2].map(|number| url(&self.stack, service.replica(number))).to_vec()
    }

    /// The processes of the services. A service that was started again has another one.
    pub(super) fn processes(&self) -> Vec<(Instance, u32)> {
        self.stack.process_ids().collect()
    }

    /// The statement about settings and versions that the report prints.
    pub(super) fn description(&self) -> String {
        self.settings.to_string()
    }

    /// Stops everything. Returns the services that did not exit with success in time.
    pub(super) async fn stop(self) -> Vec<Instance> {
        let Self { stack, .. } = self;
        stack.stop(SERVICE_TIMEOUT).await
    }
}

/// How the services reach the primary through a proxy of this machine.
fn by_proxy(port: u16) -> DatabaseSettings {
    let listed = PatroniCluster::database(DATABASE);
    DatabaseSettings { host: "127.0.0.1".into(), port: port.into(), ..listed }
}

/// How producers of SQL do.
fn producers_by_proxy(port: u16) -> Config {
    let direct = PatroniCluster::superuser(DATABASE);
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user(direct.get_user().unwrap_or_default())
        .password(direct.get_password().unwrap_or_default())
        .dbname(DATABASE)
        .application_name("chaos")
        .connect_timeout(Duration::from_secs(2));
    config
}
