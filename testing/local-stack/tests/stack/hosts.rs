//! The settings list several servers, as libpq does: the services use the one that accepts writes,
//! whatever the others do.

use std::net::TcpListener;
use std::time::Duration;

use local_stack::postgres::StopMode;
use local_stack::stack::ServiceKind;
use local_stack::test_database::{TestDatabase, installation};
use postgres_kit::database::DatabaseSettings;
use stats_notifier::verify::{Verifier, VerifyMode};
use tokio_postgres::Client;

use crate::failover::{PAIR, RepeatingProducer, items};
use crate::own_postgres::OwnPostgres;
use crate::replicas::Services;
use crate::support::{DEADLINE, until};

async fn until_listens(server: &Client) {
    let find = "SELECT FROM pg_stat_activity
                WHERE application_name = 'stats-notifier listener' AND query ~ 'LISTEN|NOTIFY'";
    until("a notifier must listen on the server that accepts writes", async || {
        server.query_opt(find, &[]).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_follow_a_failover_from_one_server_of_a_list_to_another() {
    let primary = OwnPostgres::new(installation(), "hosts-primary");
    let mut first = primary.start_migrated().await;
    let standby = OwnPostgres::new(installation(), "hosts-standby");
    standby.copy(&primary, &["--write-recovery-conf"]);
    let _second = standby.start();
    // Its kernel accepts connections, and it never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = silent.local_addr().unwrap();
    let ports = [silent.port(), standby.settings.port, primary.settings.port];
    let database = DatabaseSettings { port: ports.into_iter().collect(), ..primary.database() };
    let database = DatabaseSettings { host: "127.0.0.1,localhost,127.0.0.1".into(), ..database };

    let migration = migrate::migrate(&database, &TestDatabase::roles()).await.unwrap();
    assert_eq!((migration.created, migration.applied), (false, vec![]));
    let mut services = Services::start_on(database, PAIR, "", &[]).await;
    services.leader_and_standby().await;
    services.stack.until_ready(ServiceKind::SseGateway, DEADLINE).await.unwrap();
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    let producer = RepeatingProducer::start(&services);
    producer.until_more(50).await;
    until_listens(&primary.connect().await).await;
    standby.until_caught_up(&services.client).await;
    let interval = Duration::from_millis(100);
    let verifier = Verifier::connect(&services.database, interval).await.unwrap();
    let checked = verifier.verify(VerifyMode::OneSnapshot, &mut |_| ()).await.unwrap();
    assert_eq!(checked.mismatches, 0, "{checked:?}");

    first.stop_with(StopMode::Kill);
    standby.promote().await;
    services.client = services.connect().await;
    producer.until_more(50).await;
    let acknowledged = producer.stop().await;
    services.until_exact(&subscriber, "after the failover").await;
    // Replication is asynchronous, so some of what the primary acknowledged may be lost.
    let stored = items(&services.client).await;
    assert!(stored.is_subset(&acknowledged) && stored.len() >= 50, "{}", stored.len());
    until_listens(&services.client).await;
    services.until_rolled_up().await;
}
