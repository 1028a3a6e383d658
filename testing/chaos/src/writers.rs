//! Producers of every kind. They note the outcome of each write.

mod rest;
mod sql;

use std::time::Duration;

use local_stack::test_database::client;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use crate::world::TestWorld;
use crate::writers::rest::{ProducerKind, RestProducer};
use crate::writers::sql::SqlProducer;

/// The producers that use ingest-api: each kind, and how many of it there are.
const REST_PRODUCERS: [(ProducerKind, u64); 5] = [
    (ProducerKind::Single, 3),
    (ProducerKind::Bulk, 2),
    (ProducerKind::Keyed, 1),
    (ProducerKind::Deleting, 1),
    (ProducerKind::Refused, 1),
];

/// The number of producers that write SQL.
const SQL_PRODUCERS: u64 = 3;

/// How long a producer waits before it connects to Postgres again.
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// What producers that use ingest-api write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Everything.
    All,
    /// No invalid events, and no repeats of acknowledged requests: a repeat of a row that was lost
    /// is a new row.
    NewRows,
}

/// Starts all producers. They write until the set is dropped.
pub(crate) fn start(world: &TestWorld, seed: u64, writes: Writes) -> JoinSet<()> {
    let only_new_rows = writes == Writes::NewRows;
    let mut tasks = JoinSet::new();
    let mut random = StdRng::seed_from_u64(seed);
    for (kind, number) in REST_PRODUCERS {
        if only_new_rows && kind == ProducerKind::Refused {
            continue;
        }
        for _ in 0..number {
            let mut producer = RestProducer {
                world: world.clone(),
                client: client(),
                random: random.fork(),
                repeats: !only_new_rows,
            };
            tasks.spawn(async move {
                loop {
                    producer.write(kind).await;
                    producer.pause().await;
                }
            });
        }
    }
    for _ in 0..SQL_PRODUCERS {
        let mut producer =
            SqlProducer { world: world.clone(), random: random.fork(), prepared: None };
        tasks.spawn(async move {
            loop {
                // Errors of the connection are what the faults cause.
                let _server_away = producer.write().await;
                tokio::time::sleep(RECONNECT_DELAY).await;
            }
        });
    }
    tasks
}
