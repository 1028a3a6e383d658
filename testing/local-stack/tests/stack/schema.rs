//! Services refuse to start on an unknown schema version, and say what to do.

use std::sync::{Arc, Mutex};

use local_stack::process::ServiceProcess;
use local_stack::stack::{Ports, ServiceKind};
use local_stack::test_database::{TestDatabase, service_programs};
use secrecy::ExposeSecret;

use crate::support::DEADLINE;

/// Starts a service on a database whose schema was changed, and returns what it logs.
async fn refusal(service: ServiceKind, change: &str) -> String {
    let database = TestDatabase::create().await;
    database.connect().await.batch_execute(change).await.unwrap();
    let roles = TestDatabase::roles();
    let password = if service == ServiceKind::IngestApi {
        roles.ingest_password
    } else {
        roles.notifier_password
    };
    let settings = database.superuser();
    let ports = Ports::reserve().unwrap();
    let mut variables = vec![
        ("PGHOST", settings.host),
        ("PGPORT", settings.port.to_string()),
        ("PGDATABASE", settings.name),
        ("NEWCYCLE__DATABASE__PASSWORD", password.expose_secret().to_owned()),
        ("NEWCYCLE__INTERNAL__PORT", ports.internal(service).to_string()),
    ];
    // stats-notifier has no public port.
    if service == ServiceKind::IngestApi {
        variables.push(("NEWCYCLE__HTTP__PORT", ports.public(service).to_string()));
    }
    let logged = Arc::new(Mutex::new(String::new()));
    let lines = Arc::clone(&logged);
    let log = move |line: &str| lines.lock().unwrap().push_str(line);
    let mut process =
        ServiceProcess::start(&service_programs(), service.name(), &variables, log).unwrap();
    let ended = tokio::time::timeout(DEADLINE, process.ended())
        .await
        .expect("the service must exit")
        .unwrap();
    assert!(!ended.success(), "{service} must not exit with success");
    // Its last lines may not have been read yet.
    let all = async {
        while !logged.lock().unwrap().contains("schema") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("the log must name the schema");
    logged.lock().unwrap().clone()
}

#[tokio::test]
async fn a_missing_older_or_newer_schema_is_refused() {
    for service in [ServiceKind::IngestApi, ServiceKind::StatsNotifier] {
        let logged = refusal(service, "DROP TABLE refinery_schema_history").await;
        assert!(logged.contains("no schema yet: run `migrate`"), "{service}: {logged}");
        let logged =
            refusal(service, "DELETE FROM refinery_schema_history WHERE version > 1").await;
        assert!(
            logged.contains("schema version 1") && logged.contains("run `migrate`"),
            "{service}: {logged}"
        );
        let newer = "INSERT INTO refinery_schema_history SELECT 1000, name, applied_on, checksum FROM refinery_schema_history LIMIT 1";
        let logged = refusal(service, newer).await;
        assert!(
            logged.contains("schema version 1000") && logged.contains("start a newer release"),
            "{service}: {logged}"
        );
    }
}
