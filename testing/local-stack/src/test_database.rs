//! A migrated database of its own for each test, cloned from a template that is made once.
//!
//! Everything here panics where it fails: a test without its database has nothing to say.

#![expect(clippy::expect_used, reason = "a test without its database has nothing to say")]

use std::sync::atomic::{AtomicU32, Ordering};

use migrate::settings::RoleSettings;
use postgres_kit::database::DatabaseSettings;
use secrecy::SecretString;
use tokio_postgres::{Client, Config, NoTls};

use crate::postgres::Installation;

/// Names the test cluster, as `host=… port=… user=… password=…` of a superuser. `cargo xtask test` sets it.
pub const CLUSTER_VARIABLE: &str = "NEWCYCLE_TEST_POSTGRES";

/// Names the folders of programs of the versions of Postgres that the tests may use, separated as in PATH: first that of
/// the test cluster. `cargo xtask test` sets it; without it, there is the one of this machine.
pub const INSTALLATIONS_VARIABLE: &str = "NEWCYCLE_TEST_INSTALLATIONS";

/// The database that every test's database is a copy of.
const TEMPLATE: &str = "newcycle_template";

/// The passwords of the services' roles in the test cluster.
const INGEST_PASSWORD: &str = "test-ingest";
const NOTIFIER_PASSWORD: &str = "test-notifier";

/// A database that is dropped when the test ends.
#[derive(Debug)]
pub struct TestDatabase {
    cluster: Config,
    name: String,
}

/// The test cluster, from the environment.
#[must_use]
pub fn cluster() -> Config {
    std::env::var(CLUSTER_VARIABLE)
        .unwrap_or_else(|_| panic!("{CLUSTER_VARIABLE} is not set: run the tests with `cargo xtask test`"))
        .parse()
        .expect("NEWCYCLE_TEST_POSTGRES must be a connection string such as host=127.0.0.1 port=5432 user=postgres")
}

/// The versions of Postgres that there are, first that of the test cluster: for tests that run clusters of their own.
#[must_use]
pub fn installations() -> Vec<Installation> {
    let Some(folders) = std::env::var_os(INSTALLATIONS_VARIABLE) else {
        return vec![Installation::find().expect("there must be a Postgres")];
    };
    let at =
        |folder| Installation::at(folder).expect("NEWCYCLE_TEST_INSTALLATIONS must name folders of programs");
    std::env::split_paths(&folders).map(at).collect()
}

/// The version of Postgres of the test cluster.
#[must_use]
pub fn installation() -> Installation {
    installations().swap_remove(0)
}

/// Makes or updates the template in the cluster of a connection string. `cargo xtask test` calls it once, before
/// the tests start.
///
/// # Errors
/// A migration fails.
pub async fn prepare_template(cluster: &str) -> Result<(), migrate::MigrateError> {
    let cluster: Config = cluster.parse().map_err(|source| migrate::MigrateError::Statement {
        doing: "reading the connection string of the test cluster",
        source,
    })?;
    migrate::migrate(&as_superuser(&cluster, TEMPLATE), &TestDatabase::roles()).await?;
    Ok(())
}

impl TestDatabase {
    /// A fresh, migrated, empty database.
    ///
    /// # Panics
    /// The cluster does not answer, or has no template yet.
    pub async fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Self { cluster: cluster(), name: format!("test_{process}_{number}") };
        let create = format!("CREATE DATABASE {} TEMPLATE {TEMPLATE}", database.name);
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", database.name);
        let maintenance = connect(&database.cluster, "postgres").await;
        // An earlier process of the same id may have been killed before it could drop its own.
        maintenance.batch_execute(&drop).await.expect("the test's old database must be droppable");
        maintenance.batch_execute(&create).await.expect("the test's database must be creatable");
        database
    }

    /// How a superuser connects.
    #[must_use]
    pub fn superuser(&self) -> DatabaseSettings {
        as_superuser(&self.cluster, &self.name)
    }

    /// The passwords of the services' roles.
    #[must_use]
    pub fn roles() -> RoleSettings {
        RoleSettings {
            ingest_password: SecretString::from(INGEST_PASSWORD),
            notifier_password: SecretString::from(NOTIFIER_PASSWORD),
        }
    }

    /// How ingest-api connects.
    #[must_use]
    pub fn ingest(&self) -> DatabaseSettings {
        self.role("newcycle_ingest", INGEST_PASSWORD)
    }

    /// How stats-notifier connects.
    #[must_use]
    pub fn notifier(&self) -> DatabaseSettings {
        self.role("newcycle_notifier", NOTIFIER_PASSWORD)
    }

    /// A connection of a superuser.
    ///
    /// # Panics
    /// The cluster does not answer.
    pub async fn connect(&self) -> Client {
        connect(&self.cluster, &self.name).await
    }

    fn role(&self, user: &str, password: &str) -> DatabaseSettings {
        let password = SecretString::from(password);
        DatabaseSettings { user: user.to_owned(), password, ..self.superuser() }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (mut cluster, name) = (self.cluster.clone(), self.name.clone());
        // On a thread of its own, and not waited for: this may be the only thread of the test's runtime, and
        // dropping waits for every connection that is just being opened, such as one of that runtime. A database
        // left behind when the process ends first harms nobody: its cluster is thrown away.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime must start").block_on(async {
                // What a failed test left prepared would hold back purging in every database of the cluster.
                if let Ok((client, connection)) = cluster.dbname(&name).connect(NoTls).await {
                    tokio::spawn(connection);
                    let prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
                    for row in client.query(prepared, &[]).await.unwrap_or_default() {
                        let rollback = format!("ROLLBACK PREPARED '{}'", row.get::<_, &str>(0));
                        let _left_behind = client.batch_execute(&rollback).await;
                    }
                }
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                if let Ok((client, connection)) = cluster.dbname("postgres").connect(NoTls).await {
                    tokio::spawn(connection);
                    let _left_behind = client.batch_execute(&drop).await;
                }
            });
        });
    }
}

fn as_superuser(cluster: &Config, name: &str) -> DatabaseSettings {
    let host = match cluster.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        _ => panic!("{CLUSTER_VARIABLE} must name a host"),
    };
    let password = String::from_utf8_lossy(cluster.get_password().unwrap_or_default());
    DatabaseSettings {
        host,
        port: cluster.get_ports().first().copied().unwrap_or(5432),
        name: name.to_owned(),
        user: cluster.get_user().unwrap_or("postgres").to_owned(),
        password: SecretString::from(password.as_ref()),
        connect_timeout: service_kit::settings::NonZeroDuration::from_millis(5_000),
    }
}

async fn connect(cluster: &Config, name: &str) -> Client {
    let mut config = cluster.clone();
    let (client, connection) =
        config.dbname(name).connect(NoTls).await.expect("the test cluster must accept connections");
    tokio::spawn(connection);
    client
}
