//! Tests of migrations: twice, many at once, and refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use local_stack::ports::reserve_port;
use local_stack::postgres::{Cluster, ClusterSettings};
use local_stack::test_database::installation;
use migrate::settings::RoleSettings;
use migrate::{MigrateError, migrate};
use postgres_kit::database::DatabaseSettings;
use postgres_kit::schema;
use secrecy::SecretString;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// A Postgres cluster for one test, without any role or database of Newcycle.
struct Fresh {
    settings: ClusterSettings,
    cluster: Cluster,
}

impl Fresh {
    fn start(name: &str) -> Self {
        let prefix = format!("newcycle-migrate-{name}-");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap().keep();
        let settings = ClusterSettings {
            folder,
            port: reserve_port().unwrap(),
            user: "bootstrap".to_owned(),
            password: "secret".to_owned(),
            durable: false,
            parameters: Vec::new(),
        };
        let cluster = Cluster::start(&installation(), &settings).unwrap();
        Self { settings, cluster }
    }

    fn database(&self, name: &str) -> DatabaseSettings {
        self.as_role(name, &self.settings.user, &self.settings.password)
    }

    fn as_role(&self, name: &str, user: &str, password: &str) -> DatabaseSettings {
        DatabaseSettings {
            host: "127.0.0.1".to_owned(),
            port: self.settings.port,
            name: name.to_owned(),
            user: user.to_owned(),
            password: SecretString::from(password),
            connect_timeout: service_kit::settings::NonZeroDuration::from_millis(5_000),
            pooler: false,
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.cluster.stop();
        let _missing = std::fs::remove_dir_all(&self.settings.folder);
    }
}

fn roles(ingest: &str, notifier: &str) -> RoleSettings {
    RoleSettings {
        ingest_password: SecretString::from(ingest),
        notifier_password: SecretString::from(notifier),
        access_password: SecretString::from("access"),
    }
}

async fn connect(database: &DatabaseSettings) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = database.connection("test").connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Sixteen runs at once, on two databases, in a cluster without any database or role of Newcycle:
/// all possible collisions of databases, roles, passwords and migrations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_runs_migrate_each_database_once() {
    let fresh = Fresh::start("many");
    let names = ["one", "an\"other"];
    let mut running = tokio::task::JoinSet::new();
    for attempt in 0..16 {
        let (database, roles) = (fresh.database(names[attempt % 2]), roles("first", "second"));
        running.spawn(async move { (attempt % 2, migrate(&database, &roles).await) });
    }
    let (mut created, mut applied) = ([0, 0], [0, 0]);
    for (name, outcome) in running.join_all().await {
        let outcome = outcome.unwrap();
        assert_eq!(outcome.version, schema::VERSION);
        created[name] += usize::from(outcome.created);
        applied[name] += outcome.applied.len();
    }
    let versions = usize::try_from(schema::VERSION).unwrap();
    assert_eq!((created, applied), ([1, 1], [versions, versions]), "each database exactly once");
    for name in names {
        schema::check(&connect(&fresh.database(name)).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_second_run_changes_only_the_passwords() {
    let fresh = Fresh::start("again");
    let database = fresh.database("newcycle");
    let first = migrate(&database, &roles("first", "second")).await.unwrap();
    let versions = usize::try_from(schema::VERSION).unwrap();
    assert!(first.created && first.applied.len() == versions, "{first:?}");
    let insert = "INSERT INTO users VALUES (gen_random_uuid())";
    connect(&fresh.as_role("newcycle", "newcycle_ingest", "first"))
        .await
        .unwrap()
        .batch_execute(insert)
        .await
        .unwrap();
    let again = migrate(&database, &roles("third", "fourth")).await.unwrap();
    assert!(!again.created && again.applied.is_empty(), "{again:?}");
    let rows = "SELECT count(*) FROM users";
    let users: i64 = connect(&database).await.unwrap().query_one(rows, &[]).await.unwrap().get(0);
    assert_eq!(users, 1, "existing rows must stay");
    let old = connect(&fresh.as_role("newcycle", "newcycle_ingest", "first")).await.err().unwrap();
    assert_eq!(old.code(), Some(&SqlState::INVALID_PASSWORD));
    connect(&fresh.as_role("newcycle", "newcycle_ingest", "third")).await.unwrap();
    connect(&fresh.as_role("newcycle", "newcycle_notifier", "fourth")).await.unwrap();
}

/// ingest-api's role cannot write counts, and stats-notifier's role cannot write events.
#[tokio::test]
async fn each_role_can_write_only_its_own_tables() {
    let fresh = Fresh::start("roles");
    migrate(&fresh.database("newcycle"), &roles("first", "second")).await.unwrap();
    let ingest = connect(&fresh.as_role("newcycle", "newcycle_ingest", "first")).await.unwrap();
    let notifier =
        connect(&fresh.as_role("newcycle", "newcycle_notifier", "second")).await.unwrap();
    let ingest_statements = [
        "DELETE FROM rollup",
        "UPDATE rollup SET count = 0",
        "UPDATE rollup_unit SET kept_since = now()",
        "DELETE FROM count_log",
        "INSERT INTO count_log VALUES (DEFAULT, now(), 1, 'transfers')",
        "UPDATE rollup_cursor SET term = 0",
        "TRUNCATE items",
        "ALTER TABLE items DISABLE TRIGGER ALL",
    ];
    let notifier_statements = [
        "INSERT INTO users VALUES (gen_random_uuid())",
        "DELETE FROM items",
        "UPDATE transfers SET \"timestamp\" = now()",
        "INSERT INTO count_log VALUES (DEFAULT, now(), 1, 'transfers')",
        "TRUNCATE transfers",
    ];
    let ingest = ingest_statements.map(|statement| ("ingest-api", &ingest, statement));
    let notifier = notifier_statements.map(|statement| ("stats-notifier", &notifier, statement));
    for (service, client, statement) in ingest.into_iter().chain(notifier) {
        let error = client.batch_execute(statement).await.unwrap_err();
        let refused = Some(&SqlState::INSUFFICIENT_PRIVILEGE);
        assert_eq!(error.code(), refused, "{service}: {statement}");
    }
}

#[tokio::test]
async fn refusals_name_the_reason() {
    let fresh = Fresh::start("refused");
    let database = fresh.database("newcycle");
    let empty = migrate(&database, &roles("", "second")).await.unwrap_err();
    assert!(matches!(empty, MigrateError::EmptyPassword(_)), "{empty}");
    migrate(&database, &roles("first", "second")).await.unwrap();
    let client = connect(&database).await.unwrap();
    let newer = "INSERT INTO refinery_schema_history \
         SELECT 1000, name, applied_on, checksum FROM refinery_schema_history LIMIT 1";
    client.batch_execute(newer).await.unwrap();
    let newer = migrate(&database, &roles("first", "second")).await.unwrap_err();
    assert!(newer.to_string().contains("schema version 1000"), "{newer}");
    let wrong = fresh.as_role("newcycle", "bootstrap", "wrong");
    let refused = migrate(&wrong, &roles("first", "second")).await.unwrap_err();
    assert!(matches!(refused, MigrateError::Connect { .. }), "{refused}");
}
