//! The services of a test, as processes.

use std::sync::Arc;
use std::time::Duration;

use local_stack::stack::{Part, Ports, Stack, StackSettings, built_programs};
use local_stack::test_database::TestDatabase;
use migrate::settings::RoleSettings;
use service_kit::database::DatabaseSettings;

/// The longest that any condition is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What the services of a database are told, on ports of their own.
pub(crate) fn settings(database: DatabaseSettings, roles: RoleSettings) -> StackSettings {
    StackSettings { programs: built_programs().unwrap(), database, roles, ports: Ports::free().unwrap() }
}

/// The ready services of a test's database.
pub(crate) async fn start(database: &TestDatabase) -> Stack {
    start_with(settings(database.superuser(), TestDatabase::roles())).await
}

/// Ready services.
pub(crate) async fn start_with(settings: StackSettings) -> Stack {
    let mut stack = Stack::start(settings, Arc::new(|_, _: &str| ())).unwrap();
    for part in Part::ALL {
        stack.until_ready(part, DEADLINE).await.unwrap();
    }
    stack
}
