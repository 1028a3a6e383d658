//! Services on a database of their own in the test cluster, to be put to the test from outside.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Instance, Ports, Replicas, Stack, StackSettings, built_programs};
use local_stack::test_database::TestDatabase;
use postgres_kit::database::DatabaseSettings;
use secrecy::SecretString;

/// How long a service may take to be ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ready services on a new database; what they warn of is shown.
pub(crate) async fn start(
    cluster: &ClusterSettings,
    database: &str,
    replicas: Replicas,
) -> anyhow::Result<Stack> {
    let database = DatabaseSettings {
        host: "127.0.0.1".to_owned(),
        port: cluster.port,
        name: database.to_owned(),
        user: cluster.user.clone(),
        password: SecretString::from(cluster.password.as_str()),
        connect_timeout_milliseconds: 5_000,
    };
    let roles = TestDatabase::roles();
    migrate::migrate(&database, &roles).await?;
    let (programs, ports) = (built_programs()?, vec![Ports::reserve()?]);
    let settings = StackSettings { programs, database, roles, replicas, ports, variables: Vec::new() };
    let log = Arc::new(|instance: Instance, line: &str| {
        if line.contains(" ERROR ") || line.contains(" WARN ") {
            println!("{instance:>14} | {line}");
        }
    });
    let mut stack = Stack::start(settings, log)?;
    for instance in stack.instances() {
        stack.until_ready(instance, PATIENCE).await?;
    }
    Ok(stack)
}

/// Lets all services finish; each must end well.
pub(crate) async fn stop(stack: Stack) -> anyhow::Result<()> {
    let unwell = stack.stop(PATIENCE).await;
    if !unwell.is_empty() {
        bail!("these services did not end well: {unwell:?}");
    }
    Ok(())
}
