//! Services on a database of their own in a test cluster, for tests from outside, which present the
//! [key of the tests](local_stack::test_database::TEST_KEY).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use local_stack::internal;
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Instance, Log, Ports, Replicas, Stack, StackSettings, Variable};
use local_stack::test_database::{TestDatabase, http_client, store_test_key};
use postgres_kit::database::DatabaseSettings;

/// The longest time for a service to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time for a service to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The id of the base item in [`ROWS`].
pub(crate) const BASE_ITEM: &str = "00000000-0000-7000-8000-000000000001";

/// Rows that `python/schemathesis.toml` and the bench refer to.
const ROWS: [(&str, &str); 3] = [
    ("base-items", r#"{"id":"00000000-0000-7000-8000-000000000001","description":"a thing"}"#),
    ("users", r#"{"id":"00000000-0000-7000-8000-000000000002"}"#),
    (
        "items",
        r#"{"id":"00000000-0000-7000-8000-000000000003","base_item_id":"00000000-0000-7000-8000-000000000001"}"#,
    ),
];

/// Starts services from a folder of programs on a new database, and waits until they are ready.
/// Prints their warnings.
pub(crate) async fn start(
    cluster: &ClusterSettings,
    database: &str,
    replicas: Replicas,
    programs: &Path,
) -> anyhow::Result<Stack> {
    start_with(cluster, database, replicas, programs, &[]).await
}

/// [`start`] with environment variables for some services.
pub(crate) async fn start_with(
    cluster: &ClusterSettings,
    database: &str,
    replicas: Replicas,
    programs: &Path,
    variables: &[Variable<'_>],
) -> anyhow::Result<Stack> {
    let log = Arc::new(|instance: Instance, line: &str| {
        if line.contains(" ERROR ") || line.contains(" WARN ") {
            println!("{instance:>14} | {line}");
        }
    });
    start_logged(cluster, database, replicas, programs, variables, log).await
}

/// [`start_with`], with another log.
pub(crate) async fn start_logged(
    cluster: &ClusterSettings,
    database: &str,
    replicas: Replicas,
    programs: &Path,
    variables: &[Variable<'_>],
    log: Log,
) -> anyhow::Result<Stack> {
    let database =
        DatabaseSettings::local(cluster.port, database, &cluster.user, &cluster.password);
    let roles = TestDatabase::roles();
    migrate::migrate(&database, &roles).await?;
    store_test_key(&database).await?;
    let programs = programs.to_owned();
    let ports = vec![Ports::reserve()?];
    let mut settings = StackSettings {
        programs,
        database,
        roles,
        internal_secret: internal::secret_file(),
        replicas,
        ports,
        variables: Vec::new(),
    };
    settings.set(variables);
    let mut stack = Stack::start(settings, log)?;
    for instance in stack.instances() {
        stack.until_ready(instance, READY_TIMEOUT).await?;
    }
    Ok(stack)
}

/// Stores [`ROWS`] in an ingest-api.
pub(crate) async fn store_rows(url: &str) -> anyhow::Result<()> {
    let client = http_client().build()?;
    for (kind, row) in ROWS {
        let request = client.post(format!("{url}/{kind}"));
        let request = request.header("content-type", "application/json").body(row);
        request.send().await?.error_for_status().with_context(|| format!("storing {row}"))?;
    }
    Ok(())
}

/// Stops all services; each must exit with success.
pub(crate) async fn stop(stack: Stack) -> anyhow::Result<()> {
    let unwell = stack.stop(SHUTDOWN_TIMEOUT).await;
    if !unwell.is_empty() {
        bail!("these services did not exit with success: {unwell:?}");
    }
    Ok(())
}
