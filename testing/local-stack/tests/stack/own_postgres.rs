//! A Postgres that only one test uses, so that the test may stop, copy and promote it.

use local_stack::ports::reserve_port;
use local_stack::postgres::{Cluster, ClusterSettings, Installation};
use local_stack::test_database::{TestDatabase, store_test_key};
use postgres_kit::database::DatabaseSettings;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::support::until;

/// A cluster, which may not exist yet. Its folder is removed when this is dropped.
pub(crate) struct OwnPostgres {
    pub(crate) installation: Installation,
    pub(crate) settings: ClusterSettings,
    _folder: TempDir,
}

impl OwnPostgres {
    /// `name` is a part of the folder's name, for people who look for its log.
    pub(crate) fn new(installation: Installation, name: &str) -> Self {
        let folder =
            tempfile::Builder::new().prefix(&format!("newcycle-{name}-")).tempdir().unwrap();
        let settings = ClusterSettings {
            folder: folder.path().to_owned(),
            port: reserve_port().unwrap(),
            user: "postgres".to_owned(),
            password: "own".to_owned(),
            // Commits survive a crash of the server, but not one of the machine.
            durable: false,
            parameters: vec!["synchronous_commit=on".to_owned()],
        };
        Self { installation, settings, _folder: folder }
    }

    /// Starts the server, and creates the cluster first if it does not exist.
    pub(crate) fn start(&self) -> Cluster {
        Cluster::start(&self.installation, &self.settings).unwrap()
    }

    /// Starts the server, with the services' database and roles.
    pub(crate) async fn start_migrated(&self) -> Cluster {
        let cluster = self.start();
        migrate::migrate(&self.database(), &TestDatabase::roles()).await.unwrap();
        store_test_key(&self.database()).await.unwrap();
        cluster
    }

    /// Creates the cluster as a base backup of another one that runs. With `--write-recovery-conf`
    /// as a further argument it will be a standby of that one.
    pub(crate) fn copy(&self, running: &Self, further: &[&str]) {
        let mut backup = self.installation.program("pg_basebackup", &self.settings).unwrap();
        backup
            .args(["--no-sync", "--checkpoint=fast", "--port", &running.settings.port.to_string()])
            .arg("--pgdata")
            .arg(self.settings.data())
            .args(further);
        let output = backup.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pg_basebackup: {errors}");
    }

    /// How a superuser connects.
    pub(crate) fn database(&self) -> DatabaseSettings {
        self.settings.database("newcycle")
    }

    /// A superuser's connection to the services' database, also of a standby.
    pub(crate) async fn connect(&self) -> Client {
        let mut config = self.database().connection("test");
        config.host("127.0.0.1").port(self.settings.port);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Promotes a standby, and waits until it accepts writes.
    pub(crate) async fn promote(&self) {
        let client = self.connect().await;
        assert!(client.query_one("SELECT pg_promote()", &[]).await.unwrap().get::<_, bool>(0));
    }

    /// Waits until a standby has replayed everything that `primary` has written until now.
    pub(crate) async fn until_caught_up(&self, primary: &Client) {
        let now: String =
            primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
        let client = self.connect().await;
        let has = format!("SELECT pg_last_wal_replay_lsn() >= '{now}'");
        until("the standby must catch up", async || {
            let has: Option<bool> = client.query_one(&has, &[]).await.unwrap().get(0);
            has.filter(|has| *has)
        })
        .await;
    }
}

/// A connection to a database that accepts writes.
pub(crate) async fn connect(database: &DatabaseSettings) -> Client {
    let (client, connection) = database.connect(&database.connection("test")).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The next transaction id that will be assigned.
pub(crate) async fn next_transaction(client: &Client) -> i64 {
    let find = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    client.query_one(find, &[]).await.unwrap().get(0)
}
