//! A stack leaves no frozen process behind.

use local_stack::stack::{Part, Replicas};
use rustix::process::{Pid, test_kill_process};

use crate::replicas::Services;
use crate::support::{DEADLINE, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_service_ends_when_asked_to_and_with_its_stack() {
    let mut services =
        Services::start(Replicas { stats_notifier: 0, ingest_api: 2, sse_gateway: 0, dashboard: 0 }).await;
    let [first, second] = [1, 2].map(|number| Part::IngestApi.replica(number));
    let _still_frozen =
        [services.stack.freeze(first).await.unwrap(), services.stack.freeze(second).await.unwrap()];
    assert!(services.stack.stop_one(first, DEADLINE).await, "a frozen service must end well when asked to");
    let (_, left) = services.stack.process_ids().next().unwrap();
    let left = Pid::from_raw(left.try_into().unwrap()).unwrap();
    drop(services);
    until("a frozen service must end with its stack", async || test_kill_process(left).err()).await;
}
