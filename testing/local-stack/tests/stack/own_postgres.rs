//! A Postgres of one test alone, which it may stop, copy and promote.

use std::process::Output;

use local_stack::postgres::{Cluster, ClusterSettings, Installation, free_port};
use local_stack::test_database::TestDatabase;
use postgres_kit::database::DatabaseSettings;
use secrecy::SecretString;
use tokio_postgres::{Client, NoTls};

use crate::support::until;

/// A cluster that is there or not yet. What is left of it is removed when dropped.
pub(crate) struct OwnPostgres {
    pub(crate) installation: Installation,
    pub(crate) settings: ClusterSettings,
}

impl OwnPostgres {
    /// One of this name, which no other test may use.
    pub(crate) fn new(installation: Installation, name: &str) -> Self {
        let settings = ClusterSettings {
            folder: std::env::temp_dir().join(format!("newcycle-{name}-{}", std::process::id())),
            port: free_port().unwrap(),
            user: "postgres".to_owned(),
            password: "own".to_owned(),
            // What it acknowledges survives its own end, though not that of the machine.
            durable: false,
            parameters: vec!["synchronous_commit=on".to_owned()],
        };
        Self { installation, settings }
    }

    /// Starts it; what is not there is made first.
    pub(crate) fn start(&self) -> Cluster {
        Cluster::start(&self.installation, &self.settings).unwrap()
    }

    /// Starts it with the database and the roles of the services.
    pub(crate) async fn start_migrated(&self) -> Cluster {
        let cluster = self.start();
        migrate::migrate(&self.database(), &TestDatabase::roles()).await.unwrap();
        cluster
    }

    /// Makes it a base backup of another one that runs. With `--write-recovery-conf` among the further arguments it follows
    /// that one from its start on, as a standby.
    pub(crate) fn copy(&self, running: &Self, further: &[&str]) {
        let (port, data) = (running.settings.port.to_string(), self.settings.data());
        let mut arguments =
            vec!["--no-sync", "--port", &port, "--checkpoint=fast", "--pgdata", data.to_str().unwrap()];
        arguments.extend(further);
        self.run("pg_basebackup", &arguments);
    }

    /// Runs a program of its version, which must succeed: to this cluster as its superuser, unless the arguments name
    /// another one.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let output = self.installation.program(program, &self.settings).unwrap().args(arguments).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        output
    }

    /// How a superuser connects.
    pub(crate) fn database(&self) -> DatabaseSettings {
        DatabaseSettings {
            host: "127.0.0.1".to_owned(),
            port: self.settings.port,
            name: "newcycle".to_owned(),
            user: self.settings.user.clone(),
            password: SecretString::from(self.settings.password.as_str()),
            connect_timeout: service_kit::settings::NonZeroDuration::from_millis(5_000),
        }
    }

    /// A connection of a superuser to the services' database.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.database()).await
    }

    /// Makes a standby take writes, and waits until it does.
    pub(crate) async fn promote(&self) {
        let client = self.connect().await;
        assert!(client.query_one("SELECT pg_promote()", &[]).await.unwrap().get::<_, bool>(0));
    }

    /// Waits until a standby has all that `primary` has at this moment.
    pub(crate) async fn until_caught_up(&self, primary: &Client) {
        let now: String = primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
        let client = self.connect().await;
        let has = format!("SELECT pg_last_wal_replay_lsn() >= '{now}'");
        until("the standby must catch up", async || {
            let has: Option<bool> = client.query_one(&has, &[]).await.unwrap().get(0);
            has.filter(|has| *has)
        })
        .await;
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        let _missing = std::fs::remove_dir_all(&self.settings.folder);
    }
}

/// A connection to a database.
pub(crate) async fn connect(database: &DatabaseSettings) -> Client {
    let (client, connection) = database.connection("test").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The first transaction id that no transaction has had.
pub(crate) async fn next_transaction(client: &Client) -> i64 {
    let find = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    client.query_one(find, &[]).await.unwrap().get(0)
}
