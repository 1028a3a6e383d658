//! Tests of migrations: twice, many at once, refused, and waited for; and of the rights that they
//! give.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod rights;

use std::time::Duration;

use local_stack::ports::reserve_port;
use local_stack::postgres::{Cluster, ClusterSettings, Installation};
use local_stack::test_database::{installation, newer_schema};
use migrate::settings::RoleSettings;
use migrate::{MigrateError, migrate, wait};
use postgres_kit::connect::ConnectError;
use postgres_kit::database::DatabaseSettings;
use postgres_kit::schema::{self, SchemaError};
use secrecy::SecretString;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// The longest time for something to happen that must happen.
const DEADLINE: Duration = Duration::from_secs(30);

/// A Postgres cluster for one test, without any role or database of Newcycle.
struct Fresh {
    settings: ClusterSettings,
    cluster: Cluster,
}

impl Fresh {
    fn start(name: &str) -> Self {
        Self::start_with(&installation(), name)
    }

    fn start_with(installation: &Installation, name: &str) -> Self {
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
        let cluster = Cluster::start(installation, &settings).unwrap();
        Self { settings, cluster }
    }

    fn database(&self, name: &str) -> DatabaseSettings {
        self.as_role(name, &self.settings.user, &self.settings.password)
    }

    fn as_role(&self, name: &str, user: &str, password: &str) -> DatabaseSettings {
        DatabaseSettings::local(self.settings.port, name, user, password)
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
        max_ingest_connections: 0,
        max_notifier_connections: 0,
        max_access_connections: 0,
    }
}

async fn connect(database: &DatabaseSettings) -> Result<Client, ConnectError> {
    let (client, connection) = database.connect(&database.connection("test")).await?;
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
        assert_eq!((outcome.version, outcome.gaps), (schema::VERSION, Vec::new()));
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

#[tokio::test]
async fn refusals_name_the_reason() {
    let fresh = Fresh::start("refused");
    let database = fresh.database("newcycle");
    let empty = migrate(&database, &roles("", "second")).await.unwrap_err();
    assert!(matches!(empty, MigrateError::EmptyPassword(_)), "{empty}");
    migrate(&database, &roles("first", "second")).await.unwrap();
    let client = connect(&database).await.unwrap();
    client.batch_execute(&newer_schema(schema::VERSION + 1)).await.unwrap();
    let newer = migrate(&database, &roles("first", "second")).await.unwrap_err();
    let text = newer.to_string();
    let needed = format!(
        "schema version 1000, which needs programs of schema version {}",
        schema::VERSION + 1
    );
    assert!(text.contains(&needed) && text.contains("start a newer release"), "{text}");
    let wrong = fresh.as_role("newcycle", "bootstrap", "wrong");
    let refused = migrate(&wrong, &roles("first", "second")).await.unwrap_err();
    assert!(matches!(refused, MigrateError::Connect { .. }), "{refused}");
}

/// From the file that made the table on.
#[tokio::test]
async fn every_migration_states_the_oldest_release_that_may_run() {
    let fresh = Fresh::start("states");
    let database = fresh.database("newcycle");
    migrate(&database, &roles("first", "second")).await.unwrap();
    let stated =
        "SELECT array_agg(schema_version ORDER BY schema_version) FROM schema_compatibility";
    let row = connect(&database).await.unwrap().query_one(stated, &[]).await.unwrap();
    let expected: Vec<i32> = (4..=schema::VERSION).collect();
    assert_eq!(row.get::<_, Vec<i32>>(0), expected);
}

/// An operator who returns to the release before runs its `migrate` and waits with it.
#[tokio::test]
async fn a_newer_schema_that_allows_this_release_is_left_alone() {
    let fresh = Fresh::start("newer");
    let database = fresh.database("newcycle");
    migrate(&database, &roles("first", "second")).await.unwrap();
    let client = connect(&database).await.unwrap();
    client.batch_execute(&newer_schema(schema::VERSION)).await.unwrap();
    let migration = migrate(&database, &roles("third", "fourth")).await.unwrap();
    assert_eq!((migration.version, migration.applied.len()), (1000, 0));
    let ingest = fresh.as_role("newcycle", "newcycle_ingest", "third");
    wait(&ingest).await.unwrap();
    // What the newest file states is not enough if one before it has excluded this release.
    let excluded =
        format!("INSERT INTO schema_compatibility VALUES (999, {})", schema::VERSION + 1);
    client.batch_execute(&excluded).await.unwrap();
    let error = schema::check(&client).await.unwrap_err();
    assert!(matches!(error, SchemaError::Newer { found: 1000, .. }), "{error}");
}

/// As the role of a service, which does not exist before the first migration.
#[tokio::test]
async fn a_service_can_wait_for_the_migration() {
    let fresh = Fresh::start("wait");
    let ingest = fresh.as_role("newcycle", "newcycle_ingest", "first");
    let waiting = tokio::spawn(async move { wait(&ingest).await });
    let database = fresh.database("newcycle");
    migrate(&database, &roles("first", "second")).await.unwrap();
    let client = connect(&database).await.unwrap();
    let change = async |statement: &str| client.batch_execute(statement).await.unwrap();
    let ended = tokio::time::timeout(DEADLINE, waiting).await;
    ended.expect("it must end after the migration").unwrap().unwrap();

    // An older schema is waited for, too; a newer one never becomes this release's.
    let ingest = fresh.as_role("newcycle", "newcycle_ingest", "first");
    change("UPDATE refinery_schema_history SET version = version - 1000").await;
    let looks = async || -> i64 {
        let count = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
        client.query_one(count, &[]).await.unwrap().get(0)
    };
    let before = looks().await;
    let waiting = tokio::spawn(async move { wait(&ingest).await });
    let looked_twice = async {
        while looks().await < before + 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, looked_twice).await.expect("it must look again");
    assert!(!waiting.is_finished(), "the schema is older");
    change("UPDATE refinery_schema_history SET version = version + 2000").await;
    let ended = tokio::time::timeout(DEADLINE, waiting).await;
    let newer = ended.expect("it must end").unwrap().unwrap_err();
    assert!(matches!(newer, MigrateError::Schema(SchemaError::Newer { .. })), "{newer}");
}
