//! What each role may do, and whom everything belongs to.

use expect_test::expect;
use local_stack::test_database::installations;
use migrate::rights::Gap;
use migrate::settings::RoleSettings;
use migrate::{MigrateError, migrate};
use postgres_kit::schema;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::{Fresh, connect, roles};

/// What each role but the owner may do with each table and view.
async fn rights(client: &Client) -> String {
    let query = "
        SELECT coalesce(rolname, 'PUBLIC') || ': ' || relname || ': '
               || string_agg(privilege_type, ', ' ORDER BY privilege_type)
        FROM pg_class
        CROSS JOIN aclexplode(relacl)
        LEFT JOIN pg_roles ON pg_roles.oid = grantee
        WHERE relnamespace = 'public'::regnamespace AND grantee <> relowner
        GROUP BY rolname, relname
        ORDER BY rolname, relname";
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

/// The owners of everything that migrations create.
async fn owners(client: &Client) -> Vec<String> {
    let query = "
        SELECT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION
        SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION
        SELECT typowner::regrole::text FROM pg_type WHERE typnamespace = 'public'::regnamespace";
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Runs a statement that Postgres must refuse to this role.
async fn must_be_refused(client: &Client, statement: &str) {
    let error = client.batch_execute(statement).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {error:?}");
}

/// Takes the lock of the lead, as any session could.
const TAKE_LEAD: &str = "SELECT pg_advisory_lock(1315208537, 1)";

/// What the services do, and what members of the groups do, at least once.
async fn everyone_can_work(fresh: &Fresh, bootstrap: &Client) {
    let members = "
        CREATE ROLE warehouse LOGIN PASSWORD 'w' IN ROLE newcycle_producer;
        CREATE ROLE analyst LOGIN PASSWORD 'a' IN ROLE newcycle_reader;
        CREATE ROLE stranger LOGIN PASSWORD 's'";
    bootstrap.batch_execute(members).await.unwrap();
    let insert = "
        INSERT INTO base_items VALUES (gen_random_uuid(), 'a bicycle');
        INSERT INTO items
        SELECT gen_random_uuid(), id, now() FROM base_items
        ON CONFLICT (id) DO NOTHING;
        DELETE FROM items";
    for (user, password) in [("newcycle_ingest", "first"), ("warehouse", "w")] {
        let client = connect(&fresh.as_role("newcycle", user, password)).await.unwrap();
        client.batch_execute(insert).await.unwrap();
        for statement in ["SELECT * FROM count_log", "CREATE TEMPORARY TABLE own ()"] {
            must_be_refused(&client, statement).await;
        }
    }
    let notifier =
        connect(&fresh.as_role("newcycle", "newcycle_notifier", "second")).await.unwrap();
    let count = "
        SELECT * FROM valid_rollup_cursor; SELECT * FROM unfolded_count_log; SELECT * FROM events;
        UPDATE rollup_cursor SET term = term + 1; DELETE FROM count_log;
        SELECT pg_advisory_lock(1315208537, 1), pg_advisory_unlock(1315208537, 1)";
    notifier.batch_execute(count).await.unwrap();
    let analyst = connect(&fresh.as_role("newcycle", "analyst", "a")).await.unwrap();
    let read = "
        SELECT * FROM events; SELECT * FROM rollup JOIN rollup_unit USING (unit);
        SELECT * FROM valid_rollup_cursor; SELECT * FROM unfolded_count_log";
    analyst.batch_execute(read).await.unwrap();
    must_be_refused(&analyst, "DELETE FROM items").await;
    let stranger = connect(&fresh.as_role("newcycle", "stranger", "s")).await.err().unwrap();
    assert_eq!(stranger.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{stranger:?}");
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

/// A role that may create roles and databases, as managed Postgres gives one.
#[tokio::test]
async fn migrate_needs_no_superuser() {
    for installation in installations() {
        let fresh = Fresh::start_with(&installation, "no-superuser");
        let bootstrap = connect(&fresh.database("postgres")).await.unwrap();
        let create = "CREATE ROLE migrator LOGIN CREATEROLE CREATEDB PASSWORD 'm'";
        bootstrap.batch_execute(create).await.unwrap();
        let (migrator, passwords) =
            (fresh.as_role("newcycle", "migrator", "m"), roles("first", "second"));
        for first in [true, false] {
            let outcome = migrate(&migrator, &passwords).await.unwrap();
            assert_eq!((outcome.created, outcome.gaps), (first, vec![Gap::Locks]));
        }
        let owner = "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'newcycle'";
        let owner: String = bootstrap.query_one(owner, &[]).await.unwrap().get(0);
        assert_eq!(owner, "newcycle_owner");
        let superuser = connect(&fresh.database("newcycle")).await.unwrap();
        assert_eq!(owners(&superuser).await, ["newcycle_owner"]);
        everyone_can_work(&fresh, &bootstrap).await;
        let by_migrator = rights(&superuser).await;

        // What is left open: a role that may connect can stop the counting. A superuser closes it,
        // for good, and the next run still needs none.
        let analyst = connect(&fresh.as_role("newcycle", "analyst", "a")).await.unwrap();
        analyst.batch_execute(TAKE_LEAD).await.unwrap();
        drop(analyst);
        let closed = migrate(&fresh.database("newcycle"), &passwords).await.unwrap();
        assert_eq!((closed.applied, closed.gaps), (Vec::new(), Vec::new()));
        let again = migrate(&migrator, &passwords).await.unwrap();
        assert_eq!(again.gaps, []);
        let analyst = connect(&fresh.as_role("newcycle", "analyst", "a")).await.unwrap();
        must_be_refused(&analyst, TAKE_LEAD).await;
        analyst.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
        assert_eq!(rights(&superuser).await, by_migrator);
        let members = "DROP ROLE warehouse, analyst, stranger";
        drop(analyst);
        bootstrap.batch_execute(members).await.unwrap();
        everyone_can_work(&fresh, &bootstrap).await;
    }
}

/// The database exists, and belongs to the role of `migrate` or to another one.
#[tokio::test]
async fn an_existing_database_keeps_its_owner() {
    let fresh = Fresh::start("existing");
    let bootstrap = connect(&fresh.database("postgres")).await.unwrap();
    let create = "
        CREATE ROLE migrator LOGIN CREATEROLE PASSWORD 'm';
        CREATE ROLE administrator";
    bootstrap.batch_execute(create).await.unwrap();
    for name in ["newcycle", "others"] {
        bootstrap.batch_execute(&format!("CREATE DATABASE {name} OWNER migrator")).await.unwrap();
    }
    bootstrap.batch_execute("ALTER DATABASE others OWNER TO administrator").await.unwrap();
    let migrator = fresh.as_role("newcycle", "migrator", "m");
    for applied in [usize::try_from(schema::VERSION).unwrap(), 0] {
        let outcome = migrate(&migrator, &roles("first", "second")).await.unwrap();
        assert_eq!((outcome.applied.len(), outcome.gaps), (applied, vec![Gap::Locks]));
    }
    assert_eq!(
        owners(&connect(&fresh.database("newcycle")).await.unwrap()).await,
        ["newcycle_owner"]
    );
    everyone_can_work(&fresh, &bootstrap).await;

    let others = fresh.as_role("others", "migrator", "m");
    let refused = migrate(&others, &roles("first", "second")).await.unwrap_err();
    assert!(matches!(refused, MigrateError::SchemaClosed), "{refused}");
    // As the message says.
    connect(&fresh.database("others"))
        .await
        .unwrap()
        .batch_execute("GRANT USAGE, CREATE ON SCHEMA public TO newcycle_owner")
        .await
        .unwrap();
    let outcome = migrate(&others, &roles("first", "second")).await.unwrap();
    assert_eq!(outcome.gaps, [Gap::Connect, Gap::Locks]);
}

/// The rights of all roles, in full.
#[tokio::test]
async fn the_rights_are_these() {
    let fresh = Fresh::start("rights");
    migrate(&fresh.database("newcycle"), &roles("first", "second")).await.unwrap();
    let client = connect(&fresh.database("newcycle")).await.unwrap();
    expect![[r#"
        newcycle_access: access_key: INSERT, SELECT
        newcycle_access: base_items: SELECT
        newcycle_access: deletion: SELECT
        newcycle_access: items: SELECT
        newcycle_access: refinery_schema_history: SELECT
        newcycle_access: schema_compatibility: SELECT
        newcycle_access: transfers: SELECT
        newcycle_access: users: SELECT
        newcycle_ingest: access_key: SELECT
        newcycle_ingest: access_keyring: SELECT
        newcycle_ingest: base_items: INSERT, SELECT
        newcycle_ingest: deletion: INSERT
        newcycle_ingest: items: DELETE, INSERT, SELECT
        newcycle_ingest: refinery_schema_history: SELECT
        newcycle_ingest: schema_compatibility: SELECT
        newcycle_ingest: transfers: DELETE, INSERT, SELECT
        newcycle_ingest: users: INSERT, SELECT
        newcycle_notifier: access_key: SELECT
        newcycle_notifier: access_keyring: SELECT
        newcycle_notifier: count_log: DELETE, SELECT
        newcycle_notifier: events: SELECT
        newcycle_notifier: items: SELECT
        newcycle_notifier: refinery_schema_history: SELECT
        newcycle_notifier: rollup: DELETE, INSERT, SELECT, UPDATE
        newcycle_notifier: rollup_cursor: SELECT, UPDATE
        newcycle_notifier: rollup_unit: SELECT, UPDATE
        newcycle_notifier: schema_compatibility: SELECT
        newcycle_notifier: transfers: SELECT
        newcycle_notifier: unfolded_count_log: SELECT
        newcycle_notifier: valid_rollup_cursor: SELECT
        newcycle_producer: base_items: INSERT, SELECT
        newcycle_producer: items: DELETE, INSERT, SELECT
        newcycle_producer: transfers: DELETE, INSERT, SELECT
        newcycle_producer: users: INSERT, SELECT
        newcycle_reader: base_items: SELECT
        newcycle_reader: events: SELECT
        newcycle_reader: items: SELECT
        newcycle_reader: rollup: SELECT
        newcycle_reader: rollup_unit: SELECT
        newcycle_reader: transfers: SELECT
        newcycle_reader: unfolded_count_log: SELECT
        newcycle_reader: users: SELECT
        newcycle_reader: valid_rollup_cursor: SELECT
    "#]]
    .assert_eq(&rights(&client).await);
    let database = "
        SELECT string_agg(grantee::regrole || ' ' || privilege_type, ', ' ORDER BY 1)
        FROM pg_database CROSS JOIN aclexplode(datacl)
        WHERE datname = 'newcycle' AND grantee <> datdba";
    let database: String = client.query_one(database, &[]).await.unwrap().get(0);
    expect!["newcycle_ingest CONNECT, newcycle_notifier CONNECT, newcycle_access CONNECT, newcycle_producer CONNECT, newcycle_reader CONNECT"].assert_eq(&database);
}

#[tokio::test]
async fn the_services_roles_have_limits() {
    let fresh = Fresh::start("limits");
    let limited = RoleSettings {
        max_ingest_connections: 1,
        max_notifier_connections: 2,
        ..roles("first", "second")
    };
    migrate(&fresh.database("newcycle"), &limited).await.unwrap();
    let ingest = fresh.as_role("newcycle", "newcycle_ingest", "first");
    let client = connect(&ingest).await.unwrap();
    let refused = connect(&ingest).await.err().unwrap();
    assert_eq!(refused.code(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{refused:?}");
    let timeout: String = client.query_one("SHOW statement_timeout", &[]).await.unwrap().get(0);
    assert_eq!(timeout, "1min");
    migrate(&fresh.database("newcycle"), &roles("first", "second")).await.unwrap();
    connect(&ingest).await.unwrap();
}
