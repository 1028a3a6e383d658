//! Services refuse to start on an unknown schema version, and say what to do.

use std::sync::Arc;

use local_stack::stack::{Replicas, ServiceKind, Stack};
use local_stack::test_database::TestDatabase;
use parking_lot::Mutex;

use crate::support::{DEADLINE, settings, until};

/// Starts one replica of a service on a database whose schema was changed, and returns what it
/// logs.
async fn refusal(service: ServiceKind, replicas: Replicas, change: &str) -> String {
    let database = TestDatabase::create().await;
    database.connect().await.batch_execute(change).await.unwrap();
    let settings = settings(database.superuser(), replicas);
    let logged = Arc::new(Mutex::new(String::new()));
    let lines = Arc::clone(&logged);
    let log = Arc::new(move |_, line: &str| lines.lock().push_str(line));
    let mut stack = Stack::start(settings, log).unwrap();
    let ended = tokio::time::timeout(DEADLINE, stack.ended()).await;
    let ended = ended.expect("the service must exit").to_string();
    assert_eq!(ended, format!("{service} has ended (exit status: 1): its log says why"));
    // Its last lines may not have been read yet.
    until("the log must name the schema", async || logged.lock().contains("schema").then_some(()))
        .await;
    logged.lock().clone()
}

#[tokio::test]
async fn a_missing_older_or_newer_schema_is_refused() {
    let older = "DELETE FROM refinery_schema_history WHERE version > 1";
    let newer = "INSERT INTO refinery_schema_history
        SELECT 1000, name, applied_on, checksum FROM refinery_schema_history LIMIT 1";
    let cases: [(&str, &[&str]); 3] = [
        ("DROP TABLE refinery_schema_history", &["no schema yet: run `migrate`"]),
        (older, &["schema version 1,", "run `migrate`"]),
        (newer, &["schema version 1000,", "start a newer release"]),
    ];
    let services = [
        (ServiceKind::IngestApi, Replicas { ingest_api: 1, ..Replicas::NONE }),
        (ServiceKind::StatsNotifier, Replicas { stats_notifier: 1, ..Replicas::NONE }),
    ];
    for (service, replicas) in services {
        for (change, texts) in cases {
            let logged = refusal(service, replicas, change).await;
            assert!(texts.iter().all(|text| logged.contains(text)), "{service}: {logged}");
        }
    }
}
