//! Producers that do whatever a producer may do.

use std::time::{Duration, Instant};

use local_stack::test_database::TestDatabase;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

/// Writes for a while with many connections at once, and returns when all have ended.
pub(crate) async fn write(database: &TestDatabase, writers: u64, time: Duration) {
    let setup = database.connect().await;
    let (base_item, user, item) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    setup
        .batch_execute(&format!(
            "INSERT INTO base_items VALUES ('{base_item}', ''); INSERT INTO users VALUES ('{user}'); \
             INSERT INTO items VALUES ('{item}', '{base_item}', '1999-12-31 23:59:59.999Z')"
        ))
        .await
        .unwrap();
    let mut tasks = Vec::new();
    for seed in 0..writers {
        let client = database.connect().await;
        tasks.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let started = Instant::now();
            while started.elapsed() < time {
                let transaction = transaction(&mut random, base_item, user, item);
                for statement in transaction {
                    // Some fail, as they should: serialization failures and deadlocks roll back whole.
                    if client.batch_execute(&statement).await.is_err() {
                        client.batch_execute("ROLLBACK").await.unwrap();
                        break;
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// One transaction, as the statements to send one by one.
fn transaction(random: &mut StdRng, base_item: Uuid, user: Uuid, item: Uuid) -> Vec<String> {
    let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][random.random_range(0..3)];
    if random.random_bool(0.3) {
        return vec![change(random, base_item, user, item)];
    }
    let mut statements = vec![format!("BEGIN ISOLATION LEVEL {isolation}")];
    for _ in 0..random.random_range(1..4) {
        match random.random_range(0..5) {
            0 => {
                statements.push("SAVEPOINT here".to_owned());
                statements.push(change(random, base_item, user, item));
                statements.push("ROLLBACK TO here".to_owned());
            }
            1 => {
                statements.push("SAVEPOINT here".to_owned());
                statements.push(change(random, base_item, user, item));
                statements.push("RELEASE here".to_owned());
            }
            _ => statements.push(change(random, base_item, user, item)),
        }
        if random.random_bool(0.2) {
            // Held open across many ticks: the time is spent in the server, inside the transaction.
            statements.push(format!("SELECT pg_sleep({})", random.random_range(0.01..0.4)));
        }
    }
    statements.push(if random.random_bool(0.2) { "ROLLBACK" } else { "COMMIT" }.to_owned());
    statements
}

fn change(random: &mut StdRng, base_item: Uuid, user: Uuid, item: Uuid) -> String {
    let time = match random.random_range(0..4) {
        0 => "now()".to_owned(),
        1 => format!("now() - interval '{} ms'", random.random_range(0..5_000)),
        2 => format!("now() - interval '{} minutes'", random.random_range(0..3_000)),
        _ => format!("'2024-02-28Z'::timestamptz + interval '{} hours'", random.random_range(0..72)),
    };
    let rows = if random.random_bool(0.2) { random.random_range(2..200) } else { 1 };
    let some = random.random_range(1..5);
    match random.random_range(0..10) {
        0..4 => format!(
            "INSERT INTO items SELECT gen_random_uuid(), '{base_item}', {time} FROM generate_series(1, {rows})"
        ),
        4..7 => format!(
            "INSERT INTO transfers SELECT gen_random_uuid(), {time} + n * interval '1 ms', '{user}', '{item}' FROM generate_series(1, {rows}) AS n"
        ),
        7 => format!(
            "UPDATE transfers SET \"timestamp\" = {time} WHERE id IN (SELECT id FROM transfers ORDER BY random() LIMIT {some} FOR UPDATE SKIP LOCKED)"
        ),
        8 => format!(
            "UPDATE items SET created_at = {time} WHERE id IN (SELECT id FROM items WHERE id <> '{item}' ORDER BY random() LIMIT {some} FOR UPDATE SKIP LOCKED)"
        ),
        _ => format!(
            "DELETE FROM transfers WHERE id IN (SELECT id FROM transfers ORDER BY random() LIMIT {some} FOR UPDATE SKIP LOCKED)"
        ),
    }
}
