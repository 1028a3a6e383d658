//! The API contract: schemathesis sends valid and invalid requests, made from each service's
//! OpenAPI description, and compares the responses with it. `python/schemathesis.toml` has the
//! settings.
//!
//! A round covers every operation once. `cargo xtask ci` runs one round; `cargo xtask contract
//! --cases` runs as many as it takes, each with another seed.

use std::path::Path;

use anyhow::Context;
use local_stack::internal;
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Replicas, ServiceKind, Stack, built_programs};
use local_stack::test_database::TEST_KEY;
use tokio::process::Command;

use crate::command::{in_checkout, step};
use crate::install::Installer;
use crate::{ephemeral_stack, postgres, programs, python};

/// The seed of the first round, and of `cargo xtask ci`.
const SEED: u64 = 20_261_123;

/// The services under test, with the media types to request. sse-gateway answers `*/*` with
/// streams.
const RUNS: [(ServiceKind, &str); 4] = [
    (ServiceKind::IngestApi, "*/*"),
    (ServiceKind::SseGateway, "*/*"),
    (ServiceKind::SseGateway, "application/json"),
    (ServiceKind::SseGateway, "text/csv"),
];

/// Paths that this module and the start of the services request.
const NOT_CASES: [&str; 2] = ["/metrics", "/readyz"];

/// Builds the services, and tests them on a Postgres of its own until they have answered this many
/// requests.
pub(crate) async fn command(cases: u64, installer: Installer) -> anyhow::Result<()> {
    programs::services().await?;
    let installation = postgres::ensure(installer)?;
    let settings = postgres::temporary_cluster("test")?;
    postgres::with_cluster(&installation, &settings, async |_| {
        run(&settings, cases, installer).await
    })
    .await
}

/// Starts the services on a database of their own in this cluster, and tests them: one round, and
/// more until they have answered this many requests.
pub(crate) async fn run(
    cluster: &ClusterSettings,
    cases: u64,
    installer: Installer,
) -> anyhow::Result<()> {
    let schemathesis_folder = python::CONTRACT.ensure(installer)?;
    let programs = built_programs()?;
    let mut stack =
        ephemeral_stack::start(cluster, "newcycle_contract", Replicas::ONE, &programs).await?;
    ephemeral_stack::store_rows(&stack.url(ServiceKind::IngestApi)).await?;
    for seed in SEED.. {
        for (service, accept) in RUNS {
            let name = format!("API contract: {service}, Accept: {accept}, seed {seed}");
            let test = schemathesis(&schemathesis_folder, &stack.url(service), accept, seed);
            tokio::select! {
                outcome = step(&name, test) => outcome?,
                ended = stack.ended() => return Err(ended),
            }
        }
        let answered = answered(&stack).await?;
        println!("== API contract: {answered} requests answered so far, all as described");
        if answered >= cases {
            break;
        }
    }
    ephemeral_stack::stop(stack).await
}

/// The number of requests answered so far at paths under test, and at paths that do not exist.
async fn answered(stack: &Stack) -> anyhow::Result<u64> {
    let mut answered = 0;
    for service in [ServiceKind::IngestApi, ServiceKind::SseGateway] {
        let metrics =
            internal::get(format!("{}/metrics", stack.internal_url(service))).await?.text().await?;
        let counters =
            metrics.lines().filter(|line| line.starts_with("http_server_requests_total{"));
        let cases = counters.filter(|line| {
            !NOT_CASES.iter().any(|path| line.contains(&format!("route=\"{path}\"")))
        });
        for line in cases {
            let count = line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u64>().ok());
            answered +=
                count.with_context(|| format!("{service} has an unknown metric format: {line}"))?;
        }
    }
    Ok(answered)
}

fn schemathesis(folder: &Path, url: &str, accept: &str, seed: u64) -> Command {
    let settings = in_checkout("xtask/python");
    let mut command = Command::new(folder.join("schemathesis"));
    command
        .arg("--config-file")
        .arg(settings.join("schemathesis.toml"))
        .args(["run", &format!("{url}/openapi.json")])
        .args(["--seed", &seed.to_string()])
        .env("NEWCYCLE_KEY", TEST_KEY)
        .env("ACCEPT", accept)
        .env("SCHEMATHESIS_HOOKS", settings.join("hooks.py"))
        // Keeps compiled files out of the checkout.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder)
        .kill_on_drop(true);
    command
}
