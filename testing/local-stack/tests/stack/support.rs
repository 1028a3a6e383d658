//! Starts the services of a test as processes.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use local_stack::internal;
use local_stack::stack::{Ports, Replicas, ServiceKind, Stack, StackSettings};
use local_stack::test_database::{TestDatabase, service_programs};
use postgres_kit::database::DatabaseSettings;

/// How long a test waits for any condition. It is far longer than an idle machine needs, because
/// the tests must pass on a busy one.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The step of [`within`].
const STEP: Duration = Duration::from_millis(10);

/// The settings of any number of replicas, on ports of their own.
pub(crate) fn settings(database: DatabaseSettings, replicas: Replicas) -> StackSettings {
    let most = ServiceKind::ALL.map(|service| replicas.count(service)).into_iter().max().unwrap();
    StackSettings {
        programs: service_programs(),
        database,
        roles: TestDatabase::roles(),
        internal_secret: internal::secret_file(),
        replicas,
        ports: (0..most).map(|_| Ports::reserve().unwrap()).collect(),
        variables: Vec::new(),
    }
}

/// Starts one of each service on a test's database, and waits until they are ready.
pub(crate) async fn start(database: &TestDatabase) -> Stack {
    start_with(settings(database.superuser(), Replicas::ONE)).await
}

/// Starts services, and waits until they are ready.
pub(crate) async fn start_with(settings: StackSettings) -> Stack {
    let mut stack = Stack::start(settings, Arc::new(|_, _: &str| ())).unwrap();
    until_ready(&mut stack).await;
    stack
}

/// Waits until all services are ready.
pub(crate) async fn until_ready(stack: &mut Stack) {
    for instance in stack.instances() {
        stack.until_ready(instance, DEADLINE).await.unwrap();
    }
}

/// Waits until `look` returns a value. `what` must happen for that.
pub(crate) async fn until<T>(what: impl Display, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, look).await
}

/// [`until`] with another time limit, for the few conditions that take long.
pub(crate) async fn until_within<T>(
    limit: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < limit, "{what}");
        // Leaves the processor to the services.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for `work` until `limit` has passed in steps of [`STEP`]. Returns `None` if the work is
/// not done by then.
///
/// For the few tests that must say how soon something happens. By the clock, a busy machine would
/// fail them by chance. The steps are a clock that a busy machine slows down:
/// - A step is never shorter than [`STEP`], so `limit` is the least time.
/// - A step ends when this process gets the processor. If it has to wait for that, as the services
///   have to, the limit becomes longer.
/// - A machine that stands still for any time makes one step longer, and no other.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let steps = async {
        let mut left = limit;
        while !left.is_zero() {
            tokio::time::sleep(STEP).await;
            left = left.saturating_sub(STEP);
        }
    };
    tokio::select! {
        // If both are done, the work was in time.
        biased;
        done = work => Some(done),
        () = steps => None,
    }
}
