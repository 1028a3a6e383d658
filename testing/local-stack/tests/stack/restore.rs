//! Copies of the database, by dump and by base backup, in other clusters and other versions of
//! Postgres, and a rebuild under load. The tests run the commands of `docs/operations.md`.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use local_stack::postgres::{Cluster, Installation};
use local_stack::stack::{Replicas, ServiceKind};
use local_stack::test_database::{TestDatabase, installation, installations};
use postgres_kit::database::DatabaseSettings;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::operations::{commands, shell};
use crate::own_postgres::{OwnPostgres, connect, next_transaction};
use crate::replicas::Services;
use crate::standby::{HOLD, RELEASE, WAIT};
use crate::support::{DEADLINE, until};

/// Gives each program its own passwords, because a program refuses the settings of another one.
const PASSWORDS: &str = "\
alias migrate='NEWCYCLE__ROLES__INGEST_PASSWORD=$INGEST_PASSWORD \
    NEWCYCLE__ROLES__NOTIFIER_PASSWORD=$NOTIFIER_PASSWORD \
    NEWCYCLE__ROLES__ACCESS_PASSWORD=$ACCESS_PASSWORD migrate'
alias stats-notifier='NEWCYCLE__DATABASE__PASSWORD=$NOTIFIER_PASSWORD stats-notifier'
";

/// Runs commands as an operator would: in a folder, on a database, with the programs of one version
/// of Postgres and those of the project.
fn operate(
    folder: &Path,
    programs: &Installation,
    database: &DatabaseSettings,
    commands: &str,
) -> Output {
    let roles = TestDatabase::roles();
    let commands = format!("{PASSWORDS}{commands}");
    shell(folder, &[programs.programs()], database, &commands)
        .env("INGEST_PASSWORD", roles.ingest_password.expose_secret())
        .env("NOTIFIER_PASSWORD", roles.notifier_password.expose_secret())
        .env("ACCESS_PASSWORD", roles.access_password.expose_secret())
        .output()
        .unwrap()
}

/// [`operate`], which must succeed.
fn must_operate(
    folder: &Path,
    programs: &Installation,
    database: &DatabaseSettings,
    commands: &str,
) {
    let output = operate(folder, programs, database, commands);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}: {errors}");
}

/// The exit code of `stats-notifier verify --json`, and its output.
fn verify(folder: &Path, database: &DatabaseSettings) -> (Option<i32>, Value) {
    let output = operate(folder, &installation(), database, "stats-notifier verify --json");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// Consumes transaction ids.
async fn consume_transaction_ids(client: &Client, transactions: u32) {
    let burn = format!(
        "DO $$ BEGIN FOR n IN 1..{transactions} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    );
    client.batch_execute(&burn).await.unwrap();
}

/// Starts services on a copy of a database. They must show exactly its counts, and then those of
/// new events too.
async fn go_on_exactly(database: DatabaseSettings, folder: &Path) -> Services {
    let mut services =
        Services::go_on(connect(&database).await, database.clone(), Replicas::ONE, &[]).await;
    services.stack.until_ready(ServiceKind::SseGateway, DEADLINE).await.unwrap();
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    services.until_exact(&subscriber, "on the copy").await;
    services.post(20).await;
    services.until_exact(&subscriber, "after new events").await;
    services.until_rolled_up().await;
    let (code, output) = verify(folder, &database);
    assert_eq!(code, Some(0), "{output}");
    services
}

/// Dumps the database while the services write to it, and restores it into another cluster.
async fn dump_and_restore(
    from: &Services,
    of: &OwnPostgres,
    to: &OwnPostgres,
    programs: &Installation,
) {
    let [dump, restore] = &commands("Moving to another server")[..] else {
        panic!("there must be one block for the old server and one for the new one")
    };
    let producer = from.produce();
    from.post(200).await;
    must_operate(&of.settings.folder, programs, &of.database(), dump);
    producer.finish().await;
    for file in ["roles.sql", "newcycle.dump"] {
        std::fs::rename(of.settings.folder.join(file), to.settings.folder.join(file)).unwrap();
    }
    must_operate(&to.settings.folder, programs, &to.database(), restore);
}

/// The transaction ids in the cursor of a dump mean nothing in another cluster. There they are
/// first lower and then higher than the cluster's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_is_exact_in_clusters_with_higher_and_with_lower_transaction_ids() {
    let young = OwnPostgres::new(installation(), "young");
    let old = OwnPostgres::new(installation(), "old");
    let _young = young.start_migrated().await;
    let _old = old.start();
    let maintenance = connect(&old.settings.database("postgres")).await;
    consume_transaction_ids(&maintenance, 20_000).await;

    let services = Services::start_on(young.database(), Replicas::ONE, "", &[]).await;
    let there = next_transaction(&services.client).await;
    dump_and_restore(&services, &young, &old, &young.installation).await;
    drop(services);
    let services = go_on_exactly(old.database(), &old.settings.folder).await;
    assert!(next_transaction(&services.client).await > there + 10_000);

    let maintenance = connect(&young.settings.database("postgres")).await;
    maintenance.batch_execute("DROP DATABASE newcycle WITH (FORCE)").await.unwrap();
    dump_and_restore(&services, &old, &young, &young.installation).await;
    drop(services);
    let services = go_on_exactly(young.database(), &young.settings.folder).await;
    assert!(next_transaction(&services.client).await < there + 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_version_continues_from_a_dump_of_an_older_one() {
    let mut versions = installations();
    versions.sort_by_key(|installation| installation.version().major);
    let [older, .., newer] = &versions[..] else {
        println!("SKIPPED: an upgrade needs two versions of Postgres, and there is one");
        return;
    };
    let before = OwnPostgres::new(older.clone(), "before");
    let after = OwnPostgres::new(newer.clone(), "after");
    let _before = before.start_migrated().await;
    let _after = after.start();
    let services = Services::start_on(before.database(), Replicas::ONE, "", &[]).await;
    dump_and_restore(&services, &before, &after, newer).await;
    drop(services);
    let services = go_on_exactly(after.database(), &after.settings.folder).await;
    let version: String =
        services.client.query_one("SHOW server_version", &[]).await.unwrap().get(0);
    assert!(version.starts_with(&newer.version().major.to_string()), "{version}");
}

/// A base backup has the system identifier of the original, and shares its history up to some
/// moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_backup_continues_from_its_own_moment() {
    let original = OwnPostgres::new(installation(), "original");
    let copy = OwnPostgres::new(installation(), "copy");
    let _original = original.start_migrated().await;
    let services = Services::start_on(original.database(), Replicas::ONE, "", &[]).await;
    let producer = services.produce();
    services.post(200).await;
    copy.copy(&original, &[]);
    services.post(200).await;
    producer.finish().await;
    services.until_rolled_up().await;
    let there = next_transaction(&services.client).await;
    drop(services);

    let _copy = copy.start();
    let folder = &copy.settings.folder;
    assert_eq!(
        verify(folder, &copy.database()).0,
        Some(0),
        "the counts must be of the same moment as the events"
    );
    let services = go_on_exactly(copy.database(), folder).await;
    while next_transaction(&services.client).await <= there {
        services.post(1).await;
    }
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    services
        .until_exact(
            &subscriber,
            "after the copy has assigned the original's later transaction ids",
        )
        .await;
    services.until_rolled_up().await;
}

/// A migrated database, with a rebuild while it was empty.
async fn counted_when_empty(folder: &Path) -> (TestDatabase, DatabaseSettings) {
    let database = TestDatabase::create().await;
    let settings = database.superuser();
    must_operate(folder, &installation(), &settings, "stats-notifier rebuild");
    assert_eq!(verify(folder, &settings).0, Some(0));
    (database, settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_of_data_alone_is_counted_by_the_triggers_or_repaired_by_a_rebuild() {
    let source = OwnPostgres::new(installation(), "source");
    let _source: Cluster = source.start_migrated().await;
    let folder = source.settings.folder.clone();
    // Its change log has higher transaction ids than the test cluster, and is not folded.
    let client = source.connect().await;
    let test_cluster = TestDatabase::create().await;
    let ahead = next_transaction(&test_cluster.connect().await).await;
    let services = Services::start_on(source.database(), Replicas::ONE, "", &[]).await;
    services.post(200).await;
    services.until_rolled_up().await;
    drop(services);
    consume_transaction_ids(&client, u32::try_from(ahead).unwrap() + 100_000).await;
    let more = "INSERT INTO items SELECT gen_random_uuid(), id, now() FROM base_items, generate_series(1, 100)";
    client.batch_execute(more).await.unwrap();

    let [of_events, restored] = &commands("Restoring events alone")[..] else {
        panic!("there must be one block for the old server and one for the new one")
    };
    must_operate(&folder, &installation(), &source.database(), of_events);
    let dump_all = "pg_dump --data-only --format=custom --file=all.dump";
    must_operate(&folder, &installation(), &source.database(), dump_all);

    // As the page describes it.
    let (_database, target) = counted_when_empty(&folder).await;
    let restored = restored.replace("newcycle", &target.name);
    must_operate(&folder, &installation(), &target, &restored);
    let (code, output) = verify(&folder, &target);
    assert_eq!((code, output["events"].as_u64()), (Some(0), Some(500)), "{output}");

    // What the page warns of.
    let without_triggers =
        "pg_restore --exit-on-error --disable-triggers --dbname=\"$PGDATABASE\" events.dump";
    // Rows that exist already are refused, and the restore continues.
    let whole = "pg_restore --dbname=\"$PGDATABASE\" all.dump || true";
    for wrong in [without_triggers, whole] {
        let (database, target) = counted_when_empty(&folder).await;
        must_operate(&folder, &installation(), &target, wrong);
        let (code, output) = verify(&folder, &target);
        assert_eq!(code, Some(1), "{wrong}: {output}");
        must_operate(&folder, &installation(), &target, "stats-notifier rebuild");
        let (code, output) = verify(&folder, &target);
        assert_eq!((code, output["events"].as_u64()), (Some(0), Some(500)), "{wrong}: {output}");
        drop(database);
    }
}

/// How long a writer may wait for a lock during a rebuild.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Writes until `stop`: inserts new events, and changes old ones, of which many have the same time.
/// Counts the statements.
async fn write(
    client: Client,
    base_item: Uuid,
    statements: Arc<AtomicUsize>,
    stop: CancellationToken,
) {
    let set = format!("SET lock_timeout = {}", LOCK_TIMEOUT.as_millis());
    client.batch_execute(&set).await.unwrap();
    let insert = format!("INSERT INTO items VALUES (gen_random_uuid(), '{base_item}', now())");
    while !stop.is_cancelled() {
        let minute = statements.load(Ordering::Relaxed) * 7 % 1000;
        let old = format!("(SELECT min(created_at) + {minute} * interval '1 min' FROM items)");
        let one = format!(
            "id = (SELECT id FROM items WHERE created_at = {old} LIMIT 1 FOR UPDATE SKIP LOCKED)"
        );
        let update =
            format!("UPDATE items SET created_at = created_at + interval '1 min' WHERE {one}");
        let delete = format!("DELETE FROM items WHERE {one}");
        for statement in [&insert, &insert, &update, &delete] {
            client.batch_execute(statement).await.unwrap();
            statements.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The leader loses its term to a rebuild and leads again afterwards, while events arrive as fast
/// as possible. For a while the rebuild has done everything except its commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_under_load_delays_no_writer_and_is_exact() {
    // The trigger does not fire in a flush, which does not set this column.
    let before = format!(
        "{WAIT} CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM wait(); RETURN NEW; END $$;
        CREATE TRIGGER wait BEFORE UPDATE OF system_identifier ON rollup_cursor
            FOR EACH ROW EXECUTE FUNCTION wait_here();
        INSERT INTO items SELECT gen_random_uuid(), base_items.id, date_trunc('day', now() - interval '2 days')
            + n % 1000 * interval '1 min' FROM base_items, generate_series(1, 50000) AS n"
    );
    let mut services = Services::start_with(Replicas::ONE, &before, &[]).await;
    services.stack.until_ready(ServiceKind::SseGateway, DEADLINE).await.unwrap();
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    let stop = CancellationToken::new();
    let mut writing = tokio::task::JoinSet::new();
    let writers: [Arc<AtomicUsize>; 6] = Default::default();
    for statements in &writers {
        let client = services.connect().await;
        let base_item = services.parents.base_item;
        writing.spawn(write(client, base_item, Arc::clone(statements), stop.clone()));
    }
    let producer = services.produce();
    let rebuild = || {
        let database = services.database.clone();
        tokio::task::spawn_blocking(move || {
            must_operate(
                &std::env::temp_dir(),
                &installation(),
                &database,
                "stats-notifier rebuild",
            );
        })
    };
    services.client.execute(HOLD, &[]).await.unwrap();
    let held = rebuild();
    until("the rebuild must wait before its commit", async || {
        let find =
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        services.client.query_opt(find, &[]).await.unwrap()
    })
    .await;
    let written = || writers.each_ref().map(|statements| statements.load(Ordering::Relaxed));
    let at_first = written();
    until("every writer must continue", async || {
        let on = written().iter().zip(at_first).all(|(now, at_first)| *now > at_first + 100);
        on.then_some(())
    })
    .await;
    services.client.execute(RELEASE, &[]).await.unwrap();
    held.await.unwrap();
    rebuild().await.unwrap();
    stop.cancel();
    producer.finish().await;
    writing.join_all().await;
    services.until_exact(&subscriber, "after two rebuilds").await;
    services.until_rolled_up().await;
    let (code, output) = verify(&std::env::temp_dir(), &services.database);
    assert_eq!(code, Some(0), "{output}");
}
