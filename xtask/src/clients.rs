//! Other people's clients, from npm and `PyPI`, against services of their own. `testing/clients`
//! has the tests; docs/clients.md and docs/producers.md list what was tried.

use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Replicas, ServiceKind, built_programs};
use local_stack::test_database::TEST_KEY;

use crate::command::step;
use crate::install::Installer;
use crate::node::Npm;
use crate::{ephemeral_stack, python};

/// Their folder in the checkout.
const FOLDER: &str = "testing/clients";

/// Runs the tests with services on a database of their own in this cluster.
pub(crate) async fn test(cluster: &ClusterSettings, installer: Installer) -> anyhow::Result<()> {
    let npm = Npm::ensure(FOLDER, installer).await?;
    let programs = built_programs()?;
    let mut stack =
        ephemeral_stack::start(cluster, "newcycle_clients", Replicas::ONE, &programs).await?;
    let clients = [
        ("clients from npm", npm.command(&["test"])),
        (
            "clients from PyPI",
            python::CLIENTS.command("python", &[&format!("{FOLDER}/clients.py")], installer)?,
        ),
    ];
    for (name, mut client) in clients {
        client
            .env("NEWCYCLE_KEY", TEST_KEY)
            .env("GATEWAY_URL", stack.url(ServiceKind::SseGateway))
            .env("INGEST_URL", stack.url(ServiceKind::IngestApi));
        tokio::select! {
            outcome = step(name, client) => outcome?,
            ended = stack.ended() => return Err(ended),
        }
    }
    ephemeral_stack::stop(stack).await
}
