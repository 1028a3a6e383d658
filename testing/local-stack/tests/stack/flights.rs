//! Real data: every bucket that the services show equals a count that was made without them.

use std::io::Read;
use std::path::{Path, PathBuf};

use local_stack::stack::{Replicas, ServiceKind, Stack};
use local_stack::test_database::{TestDatabase, client};
use serde_json::Value;

use crate::support::{DEADLINE, start, until};

/// The gateway's buckets of a topic. Null while it has no state.
async fn buckets(stack: &Stack, topic: &str) -> Value {
    let url = format!("{}/statistics/{topic}", stack.url(ServiceKind::SseGateway));
    let request = client().get(url).header("accept", "application/json");
    let text = request.send().await.unwrap().text().await.unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["buckets"].take()
}

/// Waits until every bucket of every unit is right.
pub(crate) async fn until_exact(stack: &Stack, expected: &Value, when: &str) {
    for metric in ["item-creation", "transfers"] {
        for (unit, expected) in expected[metric].as_object().unwrap() {
            let topic = format!("{metric}/{unit}");
            until(&format!("{topic} must be right {when}"), async || {
                (buckets(stack, &topic).await == *expected).then_some(())
            })
            .await;
        }
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/flights")
}

/// Posts all data, and returns the expected counts.
pub(crate) async fn post(stack: &Stack) -> Value {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(data().join("expected.json")).unwrap()).unwrap();
    for name in ["base-items", "users", "items", "transfers"] {
        let file = std::fs::File::open(data().join(format!("{name}.ndjson.gz"))).unwrap();
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(file).read_to_end(&mut body).unwrap();
        let url = format!("{}/{name}", stack.url(ServiceKind::IngestApi));
        let request = client().post(url).header("content-type", "application/x-ndjson");
        let answer = request.body(body).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let rows = &expected["rows"][name.replace('-', "_")];
        assert_eq!(
            (&answer["accepted"], &answer["rejected"]),
            (rows, &Value::from(0)),
            "{name}: {answer}"
        );
    }
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bucket_is_exact_live_and_after_each_restart() {
    let database = TestDatabase::create().await;
    let mut stack = start(&database).await;
    let expected = post(&stack).await;
    until_exact(&stack, &expected, "live").await;
    for service in Replicas::ONE.instances().map(|instance| instance.service) {
        let ended_well = stack.restart(service, DEADLINE).await.unwrap();
        assert!(ended_well, "{service} must stop without an error on SIGTERM");
        stack.until_ready(service, DEADLINE).await.unwrap();
        until_exact(&stack, &expected, &format!("after a restart of {service}")).await;
    }
}
