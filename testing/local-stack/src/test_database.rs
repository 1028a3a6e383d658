//! A migrated database for each test, cloned from a template.
//!
//! `cargo xtask db` starts the server ([`test_server`](crate::test_server)). `cargo xtask test`
//! starts one of its own instead, and passes its address in [`CLUSTER_VARIABLE`].
//!
//! Everything here panics on failure, because a test without its database proves nothing.

#![expect(clippy::expect_used, reason = "a test without its database proves nothing")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use access::store::{KeyLimits, KeyStore, StoreError};
use access_kit::key::Key;
use access_kit::scope::{Permission, Scope};
use migrate::settings::RoleSettings;
use postgres_kit::database::DatabaseSettings;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, InvalidHeaderValue};
use rustix::process::{Pid, test_kill_process};
use secrecy::SecretString;
use tokio_postgres::{Client, Config, NoTls};

use crate::postgres::Installation;
pub use crate::test_server::service_programs;
use crate::test_server::{PREPARE, server};

/// The address of the test cluster, as `host=… port=… user=… password=…` of a superuser. It takes
/// precedence over the server of `cargo xtask db`.
pub const CLUSTER_VARIABLE: &str = "NEWCYCLE_TEST_POSTGRES";

/// The program folders of the Postgres versions that tests may use, separated as in PATH. The first
/// one is the version of the test cluster. Unset, it is the version on this machine.
pub const INSTALLATIONS_VARIABLE: &str = "NEWCYCLE_TEST_INSTALLATIONS";

/// The database that every test database is a copy of.
const TEMPLATE: &str = "newcycle_template";

/// The passwords of the services' roles in the test cluster.
const INGEST_PASSWORD: &str = "test-ingest";
const NOTIFIER_PASSWORD: &str = "test-notifier";
const ACCESS_PASSWORD: &str = "test-access";

/// Longer than a template is used.
const TEST_KEY_LIFETIME: Duration = Duration::from_secs(100 * 86_400);

/// A key that may do everything in each test database, so that a test needs no key of its own.
pub const TEST_KEY: &str = "nc_tests0000000_ThisIsNoSecretItIsInEveryTestDatabaseOnly000f6UNr";

/// Why the template was not made.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The cluster does not answer, or a migration fails.
    #[error(transparent)]
    Migration(#[from] migrate::MigrateError),
    /// [`TEST_KEY`] cannot be stored.
    #[error("the key of the tests cannot be stored: {0}")]
    Key(#[from] StoreError),
}

/// The statements that make a schema that of a newer release, version 1000, which needs programs of
/// this schema version.
#[must_use]
pub fn newer_schema(oldest_program: i32) -> String {
    format!(
        "INSERT INTO refinery_schema_history
             SELECT 1000, name, applied_on, checksum FROM refinery_schema_history LIMIT 1;
         INSERT INTO schema_compatibility VALUES (1000, {oldest_program})"
    )
}

/// A database that is dropped when the test ends.
#[derive(Debug)]
pub struct TestDatabase {
    cluster: Config,
    name: String,
}

/// The address of the test cluster.
///
/// # Panics
/// There is none.
#[must_use]
pub fn cluster() -> Config {
    let connection =
        std::env::var(CLUSTER_VARIABLE).unwrap_or_else(|_| server().connection.clone());
    connection
        .parse()
        .expect("NEWCYCLE_TEST_POSTGRES must be such as host=127.0.0.1 port=5432 user=postgres")
}

/// The Postgres versions that tests may use, the one of the test cluster first: for tests that run
/// clusters of their own.
///
/// # Panics
/// There is none.
#[must_use]
pub fn installations() -> Vec<Installation> {
    let at = |folder: PathBuf| {
        Installation::at(folder).expect("there must be the programs of a Postgres")
    };
    match std::env::var_os(INSTALLATIONS_VARIABLE) {
        Some(folders) => std::env::split_paths(&folders).map(at).collect(),
        None if std::env::var_os(CLUSTER_VARIABLE).is_some() => {
            vec![Installation::find().expect("there must be a Postgres")]
        }
        None => vec![at(server().programs.clone())],
    }
}

/// The Postgres version of the test cluster.
///
/// # Panics
/// There is none.
#[must_use]
pub fn installation() -> Installation {
    installations().swap_remove(0)
}

/// Makes the template, or makes it again, in the cluster of a connection string.
///
/// # Errors
/// The cluster does not answer, a migration fails, or the key cannot be stored.
pub async fn prepare_template(cluster: &str) -> Result<(), TemplateError> {
    let statement = |doing| move |source| migrate::MigrateError::Statement { doing, source };
    let cluster: Config =
        cluster.parse().map_err(statement("reading the address of the test cluster"))?;
    let maintenance =
        open(&cluster, "postgres").await.map_err(statement("connecting to the test cluster"))?;
    let drop = format!("DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)");
    maintenance.batch_execute(&drop).await.map_err(statement("dropping the old template"))?;
    let template = as_superuser(&cluster, TEMPLATE);
    migrate::migrate(&template, &TestDatabase::roles()).await?;
    Ok(store_test_key(&template).await?)
}

/// Stores [`TEST_KEY`] in a migrated database, for tests that do not use the template.
///
/// # Errors
/// The database does not answer, or has the key already.
///
/// # Panics
/// [`TEST_KEY`] is not a key.
pub async fn store_test_key(database: &DatabaseSettings) -> Result<(), StoreError> {
    let key: Key = TEST_KEY.parse().expect("TEST_KEY is a key");
    let everything = Permission::ALL.map(Scope::all);
    let store = KeyStore::connect(database, "tests".to_owned()).await?;
    // Tests of many clients use this key for all of them.
    let limits = KeyLimits { streams: Some(i32::MAX), ..KeyLimits::default() };
    store.create(&key, "tests", &everything, Some(TEST_KEY_LIFETIME), limits).await?;
    Ok(())
}

/// Lets a client present a key with each request.
///
/// # Errors
/// The key has characters that no key has.
pub fn presenting(
    client: reqwest::ClientBuilder,
    key: &str,
) -> Result<reqwest::ClientBuilder, InvalidHeaderValue> {
    let mut header = HeaderValue::from_str(&format!("Bearer {key}"))?;
    header.set_sensitive(true);
    Ok(client.default_headers(HeaderMap::from_iter([(AUTHORIZATION, header)])))
}

/// A client that presents [`TEST_KEY`] with each request.
///
/// # Panics
/// The client cannot be built.
#[must_use]
pub fn client() -> reqwest::Client {
    http_client().build().expect("a client can be built")
}

/// The builder of a [`client`].
///
/// # Panics
/// [`TEST_KEY`] is not ASCII.
pub fn http_client() -> reqwest::ClientBuilder {
    presenting(reqwest::Client::builder(), TEST_KEY).expect("a key is ASCII")
}

impl TestDatabase {
    /// A fresh, migrated, empty database.
    ///
    /// # Panics
    /// The cluster does not answer, or has no template.
    pub async fn create() -> Self {
        static CLEANED: AtomicBool = AtomicBool::new(false);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cluster = cluster();
        let maintenance = connect(&cluster, "postgres").await;
        if !CLEANED.swap(true, Ordering::Relaxed) {
            drop_leftovers(&cluster, &maintenance).await;
        }
        // nextest runs each test in a process of its own, and all processes share a cluster.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        // A process with the same id may have been killed before it could drop its own.
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
        for statement in [drop, create] {
            if let Err(error) = maintenance.batch_execute(&statement).await {
                panic!("the test database could not be created ({error}): {PREPARE}");
            }
        }
        Self { cluster, name }
    }

    /// How a superuser connects.
    #[must_use]
    pub fn superuser(&self) -> DatabaseSettings {
        as_superuser(&self.cluster, &self.name)
    }

    /// The port of the cluster.
    #[must_use]
    pub fn port(&self) -> u16 {
        port(&self.cluster)
    }

    /// The passwords of the services' roles.
    #[must_use]
    pub fn roles() -> RoleSettings {
        RoleSettings {
            ingest_password: SecretString::from(INGEST_PASSWORD),
            notifier_password: SecretString::from(NOTIFIER_PASSWORD),
            access_password: SecretString::from(ACCESS_PASSWORD),
            max_ingest_connections: 0,
            max_notifier_connections: 0,
            max_access_connections: 0,
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

    /// How access connects.
    #[must_use]
    pub fn access(&self) -> DatabaseSettings {
        self.role("newcycle_access", ACCESS_PASSWORD)
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
        let cluster = self.cluster.clone();
        let name = self.name.clone();
        // On another thread, which is not joined: this may be the only thread of the test's
        // runtime, and dropping waits for every connection that is being opened, such as one of
        // that runtime. If the process ends first, a later test process drops the database.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime must start").block_on(drop_database(&cluster, &name));
        });
    }
}

/// Drops the databases of test processes that have ended.
async fn drop_leftovers(cluster: &Config, maintenance: &Client) {
    let query = "SELECT datname FROM pg_database WHERE datname LIKE 'test\\_%\\_%'";
    for row in maintenance.query(query, &[]).await.unwrap_or_default() {
        let name: &str = row.get(0);
        let process = name.split('_').nth(1).and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        if process.is_some_and(|process| test_kill_process(process) == Err(rustix::io::Errno::SRCH))
        {
            drop_database(cluster, name).await;
        }
    }
}

/// Drops a database, if it is still there.
async fn drop_database(cluster: &Config, name: &str) {
    // A transaction that a failed test left prepared would hold back purging in the whole cluster.
    if let Ok(client) = open(cluster, name).await {
        let prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
        for row in client.query(prepared, &[]).await.unwrap_or_default() {
            let rollback = format!("ROLLBACK PREPARED '{}'", row.get::<_, &str>(0));
            let _left_behind = client.batch_execute(&rollback).await;
        }
    }
    if let Ok(client) = open(cluster, "postgres").await {
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        let _left_behind = client.batch_execute(&drop).await;
    }
}

fn port(cluster: &Config) -> u16 {
    cluster.get_ports().first().copied().unwrap_or(5432)
}

fn as_superuser(cluster: &Config, name: &str) -> DatabaseSettings {
    let host = match cluster.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.as_str().into(),
        _ => panic!("{CLUSTER_VARIABLE} must name a host"),
    };
    let password = String::from_utf8_lossy(cluster.get_password().unwrap_or_default());
    DatabaseSettings {
        host,
        ..DatabaseSettings::local(
            port(cluster),
            name,
            cluster.get_user().unwrap_or("postgres"),
            &password,
        )
    }
}

async fn connect(cluster: &Config, name: &str) -> Client {
    let client = open(cluster, name).await;
    client.unwrap_or_else(|error| {
        panic!("the Postgres for tests does not answer ({error}): {PREPARE}")
    })
}

async fn open(cluster: &Config, name: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = cluster.clone().dbname(name).connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
