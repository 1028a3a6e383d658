//! Services refuse to start on an unknown schema version, and say what to do.

use std::sync::Arc;

use local_stack::stack::{Replicas, Stack};
use local_stack::test_database::TestDatabase;
use parking_lot::Mutex;

use crate::support::{DEADLINE, settings, until};

/// Starts one service on a database whose schema was changed, and returns what it logs.
async fn refusal(service: Replicas, change: &str) -> String {
    let database = TestDatabase::create().await;
    database.connect().await.batch_execute(change).await.unwrap();
    let settings = settings(database.superuser(), service);
    let logged = Arc::new(Mutex::new(String::new()));
    let lines = Arc::clone(&logged);
    let log = Arc::new(move |_, line: &str| lines.lock().push_str(line));
    let mut stack = Stack::start(settings, log).unwrap();
    let ended = tokio::time::timeout(DEADLINE, stack.ended()).await;
    let ended = ended.expect("the service must exit").to_string();
    assert!(!ended.contains("exit status: 0"), "it must not exit with success: {ended}");
    // Its last lines may not have been read yet.
    until("the log must name the schema", async || logged.lock().contains("schema").then_some(()))
        .await;
    logged.lock().clone()
}

#[tokio::test]
async fn a_missing_older_or_newer_schema_is_refused() {
    let newer = "INSERT INTO refinery_schema_history
        SELECT 1000, name, applied_on, checksum FROM refinery_schema_history LIMIT 1";
    let older = "DELETE FROM refinery_schema_history WHERE version > 1";
    let cases = [
        ("DROP TABLE refinery_schema_history", "no schema yet", "run `migrate`"),
        (older, "schema version 1", "run `migrate`"),
        (newer, "schema version 1000", "start a newer release"),
    ];
    let ingest_api = Replicas { ingest_api: 1, ..Replicas::NONE };
    let stats_notifier = Replicas { stats_notifier: 1, ..Replicas::NONE };
    for service in [ingest_api, stats_notifier] {
        for (change, what, advice) in cases {
            let logged = refusal(service, change).await;
            assert!(logged.contains(what) && logged.contains(advice), "{service:?}: {logged}");
        }
    }
}
