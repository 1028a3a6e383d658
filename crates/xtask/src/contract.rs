//! The API contract: schemathesis sends what each service says can be sent, and what it says cannot, and compares the
//! answers with what it says of those. `python/schemathesis.toml` has the settings.

use std::path::Path;

use anyhow::Context;
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Part, Replicas};
use tokio::process::Command;

use crate::test::step;
use crate::{python, trial};

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
    let programs = python::environment(&python::CONTRACT)?;
    let mut stack = trial::start(cluster, "newcycle_contract", Replicas::ONE).await?;
    store_rows(&stack.url(Part::IngestApi)).await?;
    for (part, accept) in RUNS {
        let name = format!("API contract: {part}, asked for {accept}");
        let test = schemathesis(&programs, &stack.url(part), accept);
        tokio::select! {
            outcome = step(&name, test) => outcome?,
            ended = stack.ended() => return Err(ended.into()),
        }
    }
    trial::stop(stack).await
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
