//! A stack leaves no frozen process behind when it ends.

use local_stack::stack::{Replicas, ServiceKind};
use rustix::process::{Pid, test_kill_process};

use crate::replicas::Services;
use crate::support::{DEADLINE, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_service_stops_on_sigterm_and_when_its_stack_is_dropped() {
    let mut services = Services::start(Replicas { ingest_api: 2, ..Replicas::NONE }).await;
    let [first, second] = [1, 2].map(|number| ServiceKind::IngestApi.replica(number));
    let _still_frozen =
        [services.stack.freeze(first).await.unwrap(), services.stack.freeze(second).await.unwrap()];
    assert!(
        services.stack.stop_one(first, DEADLINE).await,
        "a frozen service must stop without an error on SIGTERM"
    );
    let (_, left) = services.stack.process_ids().next().unwrap();
    let left = Pid::from_raw(left.try_into().unwrap()).unwrap();
    drop(services);
    until("a frozen service must end when its stack is dropped", async || {
        test_kill_process(left).err()
    })
    .await;
}
