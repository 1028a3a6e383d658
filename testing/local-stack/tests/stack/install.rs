//! The installation of `docs/operations.md`, by its own commands.

use std::path::Path;

use local_stack::test_database::installation;
use postgres_kit::database::DatabaseSettings;

use crate::operations::{commands, shell};
use crate::own_postgres::{OwnPostgres, connect};

/// Runs commands in a folder, as a superuser of the database. Returns what they print.
fn run(folder: &Path, database: &DatabaseSettings, commands: &str) -> String {
    let output = shell(folder, &[], database, commands).output().unwrap();
    assert!(output.status.success(), "{commands}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_installation_by_hand_makes_roles_and_keys() {
    let [prepare, serve, keys] = &commands("Install")[..] else {
        panic!("docs/operations.md must have three blocks of commands for an installation")
    };
    let postgres = OwnPostgres::new(installation(), "install");
    let _cluster = postgres.start();
    let database = postgres.database();
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &database, prepare);
    // Each service would run until it is stopped, on ports that others may use.
    let settings = run(folder.path(), &database, &serve.replace(" serve", " print-settings"));
    for (setting, services) in [("secret_file", 4), ("password", 2), ("allowed_origins", 2)] {
        let of_file = settings
            .lines()
            .filter(|line| line.contains(&format!(".{setting} = ")) && line.contains(".toml"));
        assert_eq!(of_file.count(), services, "{setting}: {settings}");
    }
    let printed = run(folder.path(), &database, keys);
    let [key, link] = printed.lines().collect::<Vec<_>>()[..] else {
        panic!("a key and a link: {printed}")
    };
    assert!(key.starts_with("nc_") && link.contains("/#nc_"), "{printed}");
    let made = "SELECT count(*) FROM access_key";
    let keys: i64 = connect(&database).await.query_one(made, &[]).await.unwrap().get(0);
    assert_eq!(keys, 2);
}
