//! Producers that do whatever a producer may do.

use std::collections::HashSet;
use std::fmt::Write;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use local_stack::test_database::TestDatabase;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::Client;
use uuid::Uuid;

/// How many write by SQL, and how many by REST.
const BY_SQL: u64 = 12;
const BY_REST: u64 = 6;

/// What every writer may refer to.
#[derive(Debug, Clone, Copy)]
struct Parents {
    base_item: Uuid,
    user: Uuid,
    item: Uuid,
}

/// How statements begin of which some must succeed in every run that is long enough to say anything.
pub(crate) const KINDS: [&str; 8] = [
    "COPY items",
    "MERGE INTO",
    "UPDATE items",
    "UPDATE transfers",
    "DELETE FROM",
    "ROLLBACK TO",
    "COMMIT PREPARED",
    "ROLLBACK PREPARED",
];

/// Writes for a while with many connections at once, and returns when all have ended: which of [`KINDS`] succeeded.
pub(crate) async fn write(
    database: &TestDatabase,
    ingest_api: &str,
    time: Duration,
) -> HashSet<&'static str> {
    let setup = database.connect().await;
    let parents = Parents { base_item: Uuid::now_v7(), user: Uuid::now_v7(), item: Uuid::now_v7() };
    let Parents { base_item, user, item } = parents;
    setup
        .batch_execute(&format!(
            "INSERT INTO base_items VALUES ('{base_item}', ''); INSERT INTO users VALUES ('{user}'); \
             INSERT INTO items VALUES ('{item}', '{base_item}', '1999-12-31 23:59:59.999Z')"
        ))
        .await
        .unwrap();
    let deadline = Instant::now() + time;
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..BY_SQL {
        tasks.spawn(by_sql(database.connect().await, StdRng::seed_from_u64(seed), parents, deadline));
    }
    for seed in 0..BY_REST {
        let rest = Rest { url: ingest_api.to_owned(), client: reqwest::Client::new(), parents };
        tasks.spawn(async move {
            rest.write(StdRng::seed_from_u64(seed), deadline).await;
            HashSet::new()
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn by_sql(
    client: Client,
    mut random: StdRng,
    parents: Parents,
    deadline: Instant,
) -> HashSet<&'static str> {
    let mut succeeded = HashSet::new();
    while Instant::now() < deadline {
        for statement in transaction(&mut random, parents) {
            // Some fail, as they should: serialization failures and deadlocks roll back whole, and nothing can be
            // prepared for a second phase after a NOTIFY.
            if run(&client, &statement).await.is_err() {
                client.batch_execute("ROLLBACK").await.unwrap();
                break;
            }
            succeeded.extend(KINDS.iter().find(|kind| statement.starts_with(**kind)));
        }
    }
    succeeded
}

async fn run(client: &Client, statement: &str) -> Result<(), tokio_postgres::Error> {
    let Some((copy, rows)) = statement.split_once("FROM STDIN;") else {
        return client.batch_execute(statement).await;
    };
    let mut sink = pin!(client.copy_in(&format!("{copy} FROM STDIN")).await?);
    sink.send(Bytes::copy_from_slice(rows.as_bytes())).await?;
    sink.finish().await.map(|_| ())
}

/// A producer that uses ingest-api.
struct Rest {
    url: String,
    client: reqwest::Client,
    parents: Parents,
}

impl Rest {
    async fn write(&self, mut random: StdRng, deadline: Instant) {
        let mut items = Vec::new();
        while Instant::now() < deadline {
            self.event(&mut random, &mut items).await;
        }
    }

    async fn event(&self, random: &mut StdRng, items: &mut Vec<Uuid>) {
        let Parents { base_item, user, item } = self.parents;
        let (id, time) = (Uuid::now_v7(), rest_time(random));
        match random.random_range(0..12) {
            0..4 => {
                let body = json!({ "id": id, "base_item_id": base_item, "created_at": time });
                assert_eq!(self.send("POST", "/items", &body).await, 201);
                // A retry, as of a caller who got no answer, counts nothing. SQL writers change items meanwhile:
                // then it is another.
                if random.random_bool(0.3) {
                    let again = self.send("POST", "/items", &body).await;
                    assert!(matches!(again, 200 | 409), "a repeated item was answered {again}");
                }
                items.push(id);
            }
            4..6 => {
                let body = json!({ "id": id, "item_id": item, "owner_id": user, "timestamp": time });
                assert_eq!(self.send("POST", "/transfers", &body).await, 201);
                if random.random_bool(0.3) {
                    // SQL writers change and delete transfers meanwhile: then it is another, or a new one.
                    let again = self.send("POST", "/transfers", &body).await;
                    assert!(matches!(again, 200 | 201 | 409), "a repeated transfer was answered {again}");
                }
            }
            6 => {
                let path = format!("/items/{item}/ownership");
                assert_eq!(self.send("PUT", &path, &json!({ "to": user })).await, 204);
            }
            7 => {
                let bad = json!({ "base_item_id": Uuid::now_v7() });
                assert_eq!(self.send("POST", "/items", &bad).await, 422);
            }
            8 => {
                if let Some(id) = items.pop() {
                    assert_eq!(self.send("DELETE", &format!("/items/{id}"), &Value::Null).await, 204);
                }
            }
            _ => self.bulk(random).await,
        }
    }

    /// An upload of which some lines are bad, sent twice where they have ids.
    async fn bulk(&self, random: &mut StdRng) {
        let Parents { base_item, user, item } = self.parents;
        let (mut body, mut bad) = (String::new(), false);
        let items = random.random_bool(0.5);
        for _ in 0..random.random_range(1..300) {
            let (id, time, wrong) = (Uuid::now_v7(), rest_time(random), random.random_bool(0.01));
            bad |= wrong;
            let base_item = if wrong { Uuid::nil() } else { base_item };
            let owner = if wrong { Uuid::nil() } else { user };
            let line = if items {
                json!({ "id": id, "base_item_id": base_item, "created_at": time })
            } else {
                json!({ "id": id, "item_id": item, "owner_id": owner, "timestamp": time })
            };
            writeln!(body, "{line}").unwrap();
        }
        let path = if items { "/items" } else { "/transfers" };
        let repeated = random.random_bool(0.3);
        for again in if repeated { vec![false, true] } else { vec![false] } {
            let request = self.client.post(format!("{}{path}", self.url));
            let request = request.header("content-type", "application/x-ndjson").body(body.clone());
            let answer = request.send().await.unwrap();
            let wanted = if bad { 422 } else { 200 };
            // SQL writers change rows meanwhile: then the repeated line is another, and refused.
            let right = answer.status() == wanted || (again && answer.status() == 422);
            assert!(right, "{}", answer.text().await.unwrap());
        }
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> u16 {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        let request = match body {
            Value::Null => request,
            body => request.header("content-type", "application/json").body(body.to_string()),
        };
        request.send().await.unwrap().status().as_u16()
    }
}

/// Now, a moment ago, or in a leap year's February.
fn rest_time(random: &mut StdRng) -> Option<String> {
    let back = match random.random_range(0..3) {
        0 => return None,
        1 => random.random_range(0..5_000),
        _ => random.random_range(0..200_000_000),
    };
    let time = OffsetDateTime::now_utc() - Duration::from_millis(back);
    Some(time.format(&Rfc3339).unwrap())
}

/// One transaction, as the statements to send one by one.
fn transaction(random: &mut StdRng, parents: Parents) -> Vec<String> {
    let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][random.random_range(0..3)];
    if random.random_bool(0.3) {
        return vec![change(random, parents)];
    }
    let mut statements = vec![format!("BEGIN ISOLATION LEVEL {isolation}")];
    for _ in 0..random.random_range(1..4) {
        match random.random_range(0..5) {
            0 => {
                statements.push("SAVEPOINT here".to_owned());
                statements.push(change(random, parents));
                statements.push("ROLLBACK TO here".to_owned());
            }
            1 => {
                statements.push("SAVEPOINT here".to_owned());
                statements.push(change(random, parents));
                statements.push("RELEASE here".to_owned());
            }
            _ => statements.push(change(random, parents)),
        }
        if random.random_bool(0.2) {
            // Held open across many ticks: the time is spent in the server, inside the transaction.
            statements.push(format!("SELECT pg_sleep({})", random.random_range(0.01..0.4)));
        }
    }
    let end = if random.random_bool(0.2) { "ROLLBACK" } else { "COMMIT" };
    if random.random_bool(0.2) {
        let name = Uuid::now_v7();
        statements.push(format!("PREPARE TRANSACTION '{name}'"));
        statements.push(format!("SELECT pg_sleep({})", random.random_range(0.0..0.1)));
        statements.push(format!("{end} PREPARED '{name}'"));
    } else {
        statements.push(end.to_owned());
    }
    statements
}

fn change(random: &mut StdRng, parents: Parents) -> String {
    let Parents { base_item, user, item } = parents;
    let time = match random.random_range(0..4) {
        0 => "now()".to_owned(),
        1 => format!("now() - interval '{} ms'", random.random_range(0..5_000)),
        2 => format!("now() - interval '{} minutes'", random.random_range(0..3_000)),
        _ => format!("'2024-02-28Z'::timestamptz + interval '{} hours'", random.random_range(0..72)),
    };
    let rows = if random.random_bool(0.2) { random.random_range(2..200) } else { 1 };
    let some = random.random_range(1..5);
    match random.random_range(0..12) {
        10 => {
            let mut copy = "COPY items FROM STDIN;".to_owned();
            for _ in 0..rows {
                let minute = random.random_range(0..60);
                writeln!(copy, "{}\t{base_item}\t2024-02-29 23:{minute}:00Z", Uuid::now_v7()).unwrap();
            }
            copy
        }
        11 => format!(
            "MERGE INTO transfers AS held USING (SELECT gen_random_uuid() AS id UNION ALL \
             (SELECT id FROM transfers ORDER BY random() LIMIT {some})) AS wanted ON held.id = wanted.id \
             WHEN MATCHED AND random() < 0.5 THEN DELETE \
             WHEN MATCHED THEN UPDATE SET \"timestamp\" = {time} \
             WHEN NOT MATCHED THEN INSERT VALUES (wanted.id, {time}, '{user}', '{item}')"
        ),
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
