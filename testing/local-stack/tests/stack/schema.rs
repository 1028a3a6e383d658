//! Services refuse a schema that they do not know, and say what to do.

use std::sync::{Arc, Mutex};

use local_stack::services::Service;
use local_stack::stack::{Part, Ports, built_programs};
use local_stack::test_database::TestDatabase;
use secrecy::ExposeSecret;

use crate::support::DEADLINE;

/// Starts a service on a database whose schema was changed, and returns whether it ended well and what it said.
async fn refusal(part: Part, change: &str) -> String {
    let database = TestDatabase::create().await;
    database.connect().await.batch_execute(change).await.unwrap();
    let roles = TestDatabase::roles();
    let password = if part == Part::IngestApi { roles.ingest_password } else { roles.notifier_password };
    let (settings, ports) = (database.superuser(), Ports::free().unwrap());
    let variables = [
        ("PGHOST", settings.host),
        ("PGPORT", settings.port.to_string()),
        ("PGDATABASE", settings.name),
        ("NEWCYCLE__DATABASE__PASSWORD", password.expose_secret().to_owned()),
        ("NEWCYCLE__INTERNAL__PORT", ports.internal(part).to_string()),
    ];
    let said = Arc::new(Mutex::new(String::new()));
    let lines = Arc::clone(&said);
    let log = move |line: &str| lines.lock().unwrap().push_str(line);
    let mut service = Service::start(&built_programs().unwrap(), part.name(), &variables, log).unwrap();
    let ended = tokio::time::timeout(DEADLINE, service.ended()).await.expect("the service must end").unwrap();
    assert!(!ended.success(), "{part} must not end as if all were well");
    // What it said last may still be on its way.
    let all = async {
        while !said.lock().unwrap().contains("schema") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("the log must speak of the schema");
    said.lock().unwrap().clone()
}

#[tokio::test]
async fn a_missing_older_or_newer_schema_is_refused() {
    for part in [Part::IngestApi, Part::StatsNotifier] {
        let said = refusal(part, "DROP TABLE refinery_schema_history").await;
        assert!(said.contains("no schema yet: run `migrate`"), "{part}: {said}");
        let said = refusal(part, "DELETE FROM refinery_schema_history WHERE version > 1").await;
        assert!(said.contains("schema version 1") && said.contains("run `migrate`"), "{part}: {said}");
        let newer = "INSERT INTO refinery_schema_history SELECT 1000, name, applied_on, checksum FROM refinery_schema_history LIMIT 1";
        let said = refusal(part, newer).await;
        assert!(
            said.contains("schema version 1000") && said.contains("start a newer release"),
            "{part}: {said}"
        );
    }
}
