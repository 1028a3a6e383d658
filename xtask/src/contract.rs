//! The API contract: schemathesis sends what each service says can be sent, and what it says cannot, and compares the
//! answers with what it says of those. `python/schemathesis.toml` has the settings.
//!
//! A round asks for everything once. `cargo xtask test` has one round; `cargo xtask contract --cases` has as many as it
//! takes, each of another seed.

use std::path::Path;

use anyhow::Context;
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{ServiceKind, Replicas, Stack};
use tokio::process::Command;

use crate::test::{cargo, step};
use crate::{postgres, python, trial, up};

/// The seed of the first round, which is that of `cargo xtask test`.
const SEED: u64 = 20_261_123;

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
const RUNS: [(ServiceKind, &str); 4] = [
    (ServiceKind::IngestApi, "*/*"),
    (ServiceKind::SseGateway, "*/*"),
    (ServiceKind::SseGateway, "application/json"),
    (ServiceKind::SseGateway, "text/csv"),
];

/// Paths that are asked for by this and by what starts the services.
const OWN: [&str; 2] = ["/metrics", "/readyz"];

/// Builds the services, and puts them to the test, on a Postgres of its own, until they have answered so many requests.
pub(crate) async fn command(cases: u64) -> anyhow::Result<()> {
    step("building the services", cargo(&up::BUILD)).await?;
    postgres::with_cluster(async |settings| run(settings, cases).await).await
}

/// Starts the services on a database of their own in this cluster, and puts them to the test: one round, and more until
/// they have answered so many requests.
pub(crate) async fn run(cluster: &ClusterSettings, cases: u64) -> anyhow::Result<()> {
    let programs = python::environment(&python::CONTRACT)?;
    let mut stack = trial::start(cluster, "newcycle_contract", Replicas::ONE).await?;
    store_rows(&stack.url(ServiceKind::IngestApi)).await?;
    for seed in SEED.. {
        for (part, accept) in RUNS {
            let name = format!("API contract: {part}, asked for {accept}, seed {seed}");
            let test = schemathesis(&programs, &stack.url(part), accept, seed);
            tokio::select! {
                outcome = step(&name, test) => outcome?,
                ended = stack.ended() => return Err(ended.into()),
            }
        }
        let answered = answered(&stack).await?;
        println!("== API contract: {answered} requests answered so far, each as described");
        if answered >= cases {
            break;
        }
    }
    trial::stop(stack).await
}

/// How many requests the services have answered at the paths that are put to the test, and at those that do not exist.
async fn answered(stack: &Stack) -> anyhow::Result<u64> {
    let mut answered = 0;
    for part in [ServiceKind::IngestApi, ServiceKind::SseGateway] {
        let metrics = reqwest::get(format!("{}/metrics", stack.internal_url(part))).await?.text().await?;
        let counters = metrics.lines().filter(|line| line.starts_with("http_server_requests_total{"));
        // What looks after the service is no case.
        let cases =
            counters.filter(|line| !OWN.iter().any(|path| line.contains(&format!("route=\"{path}\""))));
        for line in cases {
            let count = line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u64>().ok());
            answered +=
                count.with_context(|| format!("{part} counts requests in a way of its own: {line}"))?;
        }
    }
    Ok(answered)
}

async fn store_rows(url: &str) -> anyhow::Result<()> {
    for (kind, row) in ROWS {
        let request = reqwest::Client::new().post(format!("{url}/{kind}"));
        let request = request.header("content-type", "application/json").body(row);
        request.send().await?.error_for_status().with_context(|| format!("storing {row}"))?;
    }
    Ok(())
}

fn schemathesis(programs: &Path, url: &str, accept: &str, seed: u64) -> Command {
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let mut command = Command::new(programs.join("schemathesis"));
    command
        .arg("--config-file")
        .arg(settings.join("schemathesis.toml"))
        .args(["run", &format!("{url}/openapi.json"), "--header", &format!("Accept: {accept}")])
        .args(["--seed", &seed.to_string()])
        .env("SCHEMATHESIS_HOOKS", settings.join("hooks.py"))
        // Whatever it writes is not for the checkout.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(programs)
        .kill_on_drop(true);
    command
}
