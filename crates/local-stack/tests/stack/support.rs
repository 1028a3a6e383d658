//! The services of a test, as processes.

use std::sync::Arc;
use std::time::Duration;

use local_stack::stack::{Ports, Replicas, Stack, StackSettings, built_programs};
use local_stack::test_database::TestDatabase;
use migrate::settings::RoleSettings;
use service_kit::database::DatabaseSettings;

/// The longest that any condition is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What the services of a database are told, one of each, on ports of their own.
pub(crate) fn settings(database: DatabaseSettings, roles: RoleSettings) -> StackSettings {
    let (programs, ports) = (built_programs().unwrap(), vec![Ports::free().unwrap()]);
    StackSettings { programs, database, roles, replicas: Replicas::ONE, ports }
}

/// The ready services of a test's database.
pub(crate) async fn start(database: &TestDatabase) -> Stack {
    start_with(settings(database.superuser(), TestDatabase::roles())).await
}

/// Ready services.
pub(crate) async fn start_with(settings: StackSettings) -> Stack {
    let mut stack = Stack::start(settings, Arc::new(|_, _: &str| ())).unwrap();
    for instance in stack.instances() {
        stack.until_ready(instance, DEADLINE).await.unwrap();
    }
    stack
}
