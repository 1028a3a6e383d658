//! `cargo xtask db`: a Postgres for tests that stays until `cargo xtask db --stop`, so that
//! `cargo test -p ingest-api` and `cargo nextest run` work by themselves.
//!
//! It is a process of the developer's, never a service of the machine: nothing starts it again.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use local_stack::postgres::Cluster;
use local_stack::test_database::prepare_template;
use local_stack::test_server::{TestServer, template_fingerprint};

use crate::command::target_folder;
use crate::install::Installer;
use crate::{page, postgres, processes, programs};

/// The longest time to wait for the server to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts the server unless it runs already, makes the template unless it is current, and builds
/// the programs that tests start.
pub(crate) async fn start(installer: Installer) -> anyhow::Result<()> {
    page::build_or_explain(installer).await;
    programs::services().await?;
    let target = target_folder()?;
    let template = template_fingerprint().context("reading migrations/")?;
    match read(&target)? {
        Some(server) if processes::runs(server.process_id, "postgres") => {
            if server.template != template {
                println!("== migrating the template again, because migrations/ has changed");
                prepare_template(&server.connection).await?;
                let server = TestServer { template, ..server };
                processes::write_description(&TestServer::path(&target), &server)?;
            }
        }
        left => {
            if let Some(server) = left {
                remove(&target, &server)?;
            }
            start_server(&target, template, installer).await?;
        }
    }
    println!(
        "== the database for tests is ready: `cargo test -p ingest-api` and the like work now"
    );
    println!("== it runs until `cargo xtask db --stop`");
    Ok(())
}

/// Stops the server, and deletes its data.
pub(crate) fn stop() -> anyhow::Result<()> {
    let target = target_folder()?;
    match read(&target)? {
        Some(server) => {
            remove(&target, &server)?;
            println!("== stopped the database for tests");
        }
        None => println!("== the database for tests does not run"),
    }
    Ok(())
}

async fn start_server(target: &Path, template: u64, installer: Installer) -> anyhow::Result<()> {
    let installation = postgres::ensure(installer)?;
    let settings = postgres::temporary_cluster("db")?;
    println!("== starting Postgres {} on port {}", installation.version(), settings.port);
    let cluster = Cluster::start(&installation, &settings)?;
    let connection = postgres::connection(&settings);
    prepare_template(&connection).await?;
    let server = TestServer {
        connection,
        programs: installation.programs().to_owned(),
        folder: settings.folder,
        process_id: cluster.process_id(),
        template,
    };
    processes::write_description(&TestServer::path(target), &server)?;
    // Dropping the handle would stop the server, which must outlive this command.
    std::mem::forget(cluster);
    Ok(())
}

fn remove(target: &Path, server: &TestServer) -> anyhow::Result<()> {
    processes::stop(server.process_id, "postgres", STOP_TIMEOUT)?;
    if server.folder.exists() {
        std::fs::remove_dir_all(&server.folder)
            .with_context(|| format!("removing {}", server.folder.display()))?;
    }
    let path = TestServer::path(target);
    std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
}

fn read(target: &Path) -> anyhow::Result<Option<TestServer>> {
    let path = TestServer::path(target);
    TestServer::read(target).with_context(|| format!("reading {}: delete the file", path.display()))
}
