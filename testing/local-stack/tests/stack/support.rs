//! The services of a test, as processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use local_stack::stack::{Part, Ports, Replicas, Stack, StackSettings, built_programs};
use local_stack::test_database::TestDatabase;
use migrate::settings::RoleSettings;
use postgres_kit::database::DatabaseSettings;

/// The longest that any condition is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What the services of a database are told, one of each, on ports of their own.
pub(crate) fn settings(database: DatabaseSettings, roles: RoleSettings) -> StackSettings {
    replicas(database, roles, Replicas::ONE)
}

/// What any number of them are told.
pub(crate) fn replicas(database: DatabaseSettings, roles: RoleSettings, replicas: Replicas) -> StackSettings {
    let most = Part::ALL.map(|part| replicas.of(part)).into_iter().max().unwrap();
    let ports = (0..most).map(|_| Ports::free().unwrap()).collect();
    StackSettings {
        programs: built_programs().unwrap(),
        database,
        roles,
        replicas,
        ports,
        variables: Vec::new(),
    }
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

/// Waits until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "{what}");
        // Leaves the cores to what is waited for.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
