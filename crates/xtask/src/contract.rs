//! The API contract: schemathesis sends what each service says can be sent, and what it says cannot, and compares the
//! answers with what it says of those. `python/schemathesis.toml` has the settings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Instance, Part, Ports, Replicas, Stack, StackSettings, built_programs};
use local_stack::test_database::TestDatabase;
use secrecy::SecretString;
use service_kit::database::DatabaseSettings;
use tokio::process::Command;

use crate::python;
use crate::test::step;

/// How long a service may take to be ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// The rows that are there before: those that `python/schemathesis.toml` names.
const ROWS: [(&str, &str); 3] = [
    ("base-items", r#"{"id":"00000000-0000-7000-8000-000000000001","description":"a thing"}"#),
    ("users", r#"{"id":"00000000-0000-7000-8000-000000000002"}"#),
    (
        "items",
        r#"{"id":"00000000-0000-7000-8000-000000000003","base_item_id":"00000000-0000-7000-8000-000000000001"}"#,
    ),
];

/// What is put to the test, in the forms that the answers can have; `*/*` gets streams of sse-gateway.
const RUNS: [(Part, &str); 4] = [
    (Part::IngestApi, "*/*"),
    (Part::SseGateway, "*/*"),
    (Part::SseGateway, "application/json"),
    (Part::SseGateway, "text/csv"),
];

/// Starts the services on a database of their own in this cluster, and puts them to the test.
pub(crate) async fn run(cluster: &ClusterSettings) -> anyhow::Result<()> {
    let programs = python::environment()?;
    let database = DatabaseSettings {
        host: "127.0.0.1".to_owned(),
        port: cluster.port,
        name: "newcycle_contract".to_owned(),
        user: cluster.user.clone(),
        password: SecretString::from(cluster.password.as_str()),
        connect_timeout_milliseconds: 5_000,
    };
    let roles = TestDatabase::roles();
    migrate::migrate(&database, &roles).await?;
    let (programs_folder, ports) = (built_programs()?, vec![Ports::free()?]);
    let settings =
        StackSettings { programs: programs_folder, database, roles, replicas: Replicas::ONE, ports };
    let log = Arc::new(|instance: Instance, line: &str| {
        if line.contains(" ERROR ") || line.contains(" WARN ") {
            println!("{instance:>14} | {line}");
        }
    });
    let mut stack = Stack::start(settings, log)?;
    for instance in stack.instances() {
        stack.until_ready(instance, PATIENCE).await?;
    }
    store_rows(&stack.url(Part::IngestApi)).await?;
    for (part, accept) in RUNS {
        let name = format!("API contract: {part}, asked for {accept}");
        let test = schemathesis(&programs, &stack.url(part), accept);
        tokio::select! {
            outcome = step(&name, test) => outcome?,
            ended = stack.ended() => return Err(ended.into()),
        }
    }
    let unwell = stack.stop(PATIENCE).await;
    if !unwell.is_empty() {
        bail!("after the API contract, these did not end well: {unwell:?}");
    }
    Ok(())
}

async fn store_rows(url: &str) -> anyhow::Result<()> {
    for (kind, row) in ROWS {
        let request = reqwest::Client::new().post(format!("{url}/{kind}"));
        let request = request.header("content-type", "application/json").body(row);
        request.send().await?.error_for_status().with_context(|| format!("storing {row}"))?;
    }
    Ok(())
}

fn schemathesis(programs: &Path, url: &str, accept: &str) -> Command {
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let mut command = Command::new(programs.join("schemathesis"));
    command
        .arg("--config-file")
        .arg(settings.join("schemathesis.toml"))
        .args(["run", &format!("{url}/openapi.json"), "--header", &format!("Accept: {accept}")])
        .env("SCHEMATHESIS_HOOKS", settings.join("hooks.py"))
        // Whatever it writes is not for the checkout.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(programs)
        .kill_on_drop(true);
    command
}
