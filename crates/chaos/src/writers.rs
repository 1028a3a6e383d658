//! Producers of every kind, which note what became of each write.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;
use tokio_postgres::{Config, NoTls};
use uuid::Uuid;

use crate::history::{Fate, History, Table};

/// How long a producer waits for an answer. Short, so that many outcomes are unknown.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often a producer repeats a write of which it does not know the outcome.
const ATTEMPTS: usize = 4;

/// What every writer may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Parents {
    /// A base item.
    pub base_item: Uuid,
    /// A user.
    pub user: Uuid,
    /// An item that is never deleted.
    pub item: Uuid,
}

/// What all writers share.
#[derive(Debug, Clone)]
pub struct World {
    /// Where each ingest-api is.
    pub ingest: Vec<String>,
    /// How a superuser reaches the database.
    pub database: Config,
    /// What there is.
    pub parents: Parents,
    /// What becomes of it all.
    pub history: Arc<History>,
}

/// The kinds of writers, and how many there are of each.
const BY_REST: [(Kind, u64); 5] =
    [(Kind::Single, 3), (Kind::Bulk, 2), (Kind::Keyed, 1), (Kind::Deleting, 1), (Kind::Refused, 1)];
const BY_SQL: u64 = 3;

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// One row a request.
    Single,
    /// Uploads of many.
    Bulk,
    /// Requests whose id is an `Idempotency-Key`.
    Keyed,
    /// Items that are deleted again.
    Deleting,
    /// Events that must be refused.
    Refused,
}

/// Starts all writers, which write until the set is dropped.
#[must_use]
pub fn start(world: &World, seed: u64) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut random = StdRng::seed_from_u64(seed);
    for (kind, number) in BY_REST {
        for _ in 0..number {
            let mut writer = Rest { world: world.clone(), client: Client::new(), random: random.fork() };
            tasks.spawn(async move {
                loop {
                    writer.write(kind).await;
                    writer.rest().await;
                }
            });
        }
    }
    for _ in 0..BY_SQL {
        let mut writer = Sql { world: world.clone(), random: random.fork() };
        tasks.spawn(async move {
            loop {
                // Without a connection there is nothing to write.
                let _server_away = writer.write().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    tasks
}

/// Posts one item with an id of its own until it is acknowledged.
///
/// # Errors
/// It is not, within `patience`.
pub async fn probe(world: &World, ingest: usize, patience: Duration) -> anyhow::Result<Uuid> {
    let id = Uuid::now_v7();
    let body = json!({ "id": id, "base_item_id": world.parents.base_item });
    let request = Client::new().post(format!("{}/items", world.ingest[ingest]));
    let request = request.header("content-type", "application/json").body(body.to_string());
    let posted = async {
        loop {
            let again = request.try_clone().context("a body is cloneable")?.timeout(Duration::from_secs(2));
            if again.send().await.is_ok_and(|answer| answer.status().is_success()) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    world.history.note(Table::Items, [id], Fate::Unknown);
    tokio::time::timeout(patience, posted).await.context("an item was not acknowledged in time")??;
    world.history.note(Table::Items, [id], Fate::Stored);
    Ok(id)
}

struct Rest {
    world: World,
    client: Client,
    random: StdRng,
}

impl Rest {
    /// Leaves the cores to others.
    async fn rest(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(5..60))).await;
    }

    async fn write(&mut self, kind: Kind) {
        let history = Arc::clone(&self.world.history);
        let _in_flight = history.begin().await;
        let Parents { base_item, user, item } = self.world.parents;
        let (id, time) = (Uuid::now_v7(), time(&mut self.random));
        let transfer = json!({ "id": id, "item_id": item, "owner_id": user, "timestamp": time });
        let created = json!({ "id": id, "base_item_id": base_item, "created_at": time });
        match kind {
            Kind::Single if self.random.random_bool(0.5) => {
                self.insert(Table::Items, Method::POST, "/items", &created, None, id).await;
            }
            Kind::Single => {
                self.insert(Table::Transfers, Method::POST, "/transfers", &transfer, None, id).await;
            }
            Kind::Keyed => {
                let path = format!("/items/{item}/ownership");
                self.insert(Table::Transfers, Method::PUT, &path, &json!({ "to": user }), Some(id), id).await;
            }
            Kind::Bulk => self.bulk().await,
            Kind::Deleting => {
                history.note(Table::Items, [id], Fate::Unknown);
                // A repeat that comes after the deletion would create it anew, so there must be none.
                let answer = self.send(Method::POST, "/items", created.to_string(), None).await;
                let created = answer.is_some_and(|(status, _)| status == StatusCode::CREATED);
                if created {
                    history.note(Table::Items, [id], Fate::Stored);
                    self.delete(id).await;
                }
                history.count(if created { Fate::Stored } else { Fate::Unknown });
            }
            Kind::Refused => {
                let bad = json!({ "id": id, "base_item_id": Uuid::now_v7() });
                self.insert(Table::Items, Method::POST, "/items", &bad, None, id).await;
            }
        }
    }

    /// Inserts a row, and repeats what may have failed.
    async fn insert(
        &mut self,
        table: Table,
        method: Method,
        path: &str,
        body: &Value,
        key: Option<Uuid>,
        id: Uuid,
    ) {
        let history = Arc::clone(&self.world.history);
        history.note(table, [id], Fate::Unknown);
        // Some never repeat, and never know.
        let attempts = if self.random.random_bool(0.8) { ATTEMPTS } else { 1 };
        let mut fate = Fate::Unknown;
        for attempt in 0..attempts {
            let answer = self.send(method.clone(), path, body.to_string(), key).await;
            fate = match answer {
                Some((status, _)) if status.is_success() => Fate::Stored,
                // An earlier attempt may have been taken, by a service whose clock is another.
                Some((status, _)) if status.is_client_error() && attempt == 0 => Fate::Absent,
                _ => Fate::Unknown,
            };
            if fate != Fate::Unknown {
                break;
            }
            self.rest().await;
        }
        history.note(table, [id], fate);
        history.count(fate);
    }

    async fn delete(&mut self, id: Uuid) {
        let history = Arc::clone(&self.world.history);
        history.note(Table::Items, [id], Fate::Unknown);
        for _ in 0..ATTEMPTS {
            let path = format!("/items/{id}");
            if let Some((StatusCode::NO_CONTENT | StatusCode::NOT_FOUND, _)) =
                self.send(Method::DELETE, &path, String::new(), None).await
            {
                history.note(Table::Items, [id], Fate::Absent);
                break;
            }
        }
    }

    /// An upload, in which some lines may be bad.
    async fn bulk(&mut self) {
        let history = Arc::clone(&self.world.history);
        let Parents { base_item, user, item } = self.world.parents;
        let items = self.random.random_bool(0.5);
        let (path, table) = if items { ("/items", Table::Items) } else { ("/transfers", Table::Transfers) };
        let (mut body, mut ids) = (String::new(), Vec::new());
        for _ in 0..self.random.random_range(1..40) {
            let (id, time) = (Uuid::now_v7(), time(&mut self.random));
            let wrong = self.random.random_bool(0.02);
            let line = match (items, wrong) {
                (true, true) => json!({ "id": id, "base_item_id": Uuid::nil(), "created_at": time }),
                (true, false) => json!({ "id": id, "base_item_id": base_item, "created_at": time }),
                (false, true) => {
                    json!({ "id": id, "item_id": item, "owner_id": Uuid::nil(), "timestamp": time })
                }
                (false, false) => json!({ "id": id, "item_id": item, "owner_id": user, "timestamp": time }),
            };
            ids.push(id);
            // Writing to a string does not fail.
            let _written = writeln!(body, "{line}");
        }
        history.note(table, ids.iter().copied(), Fate::Unknown);
        let attempts = if self.random.random_bool(0.8) { ATTEMPTS } else { 1 };
        for attempt in 0..attempts {
            let url = self.url(path);
            let request = self.client.post(url).timeout(PATIENCE);
            let request = request.header("content-type", "application/x-ndjson").body(body.clone());
            if let Some(rejected) = rejected_lines(request).await {
                for (line, id) in (1..).zip(ids) {
                    let fate = match (rejected.contains(&line), attempt) {
                        (false, _) => Fate::Stored,
                        (true, 0) => Fate::Absent,
                        // An earlier attempt may have been taken, by a service whose clock is another.
                        (true, _) => Fate::Unknown,
                    };
                    history.note(table, [id], fate);
                }
                history.count(Fate::Stored);
                return;
            }
            self.rest().await;
        }
        history.count(Fate::Unknown);
    }

    /// One of all ingest-apis, as a load balancer would choose it.
    fn url(&mut self, path: &str) -> String {
        let number = self.random.random_range(0..self.world.ingest.len());
        format!("{}{path}", self.world.ingest[number])
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: String,
        key: Option<Uuid>,
    ) -> Option<(StatusCode, String)> {
        let url = self.url(path);
        let mut request = self.client.request(method, url).timeout(PATIENCE);
        if let Some(key) = key {
            request = request.header("idempotency-key", key.to_string());
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.ok()?;
        Some((answer.status(), answer.text().await.unwrap_or_default()))
    }
}

/// The lines that an upload was told are bad, of those that were all read; nothing where that is not known.
async fn rejected_lines(upload: reqwest::RequestBuilder) -> Option<Vec<u64>> {
    let answer = upload.send().await.ok()?;
    if !matches!(answer.status(), StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY) {
        return None;
    }
    let summary: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    // Fewer lines than an answer names at most.
    let errors = summary["errors"].as_array().into_iter().flatten();
    Some(errors.filter_map(|error| error["line"].as_u64()).collect())
}

/// Now, by the clock of ingest-api or of the producer, a moment ago, or in a leap year's February.
fn time(random: &mut StdRng) -> Option<String> {
    let now = OffsetDateTime::now_utc();
    let time = match random.random_range(0..4) {
        0 => return None,
        1 => now,
        2 => now - Duration::from_millis(random.random_range(0..5_000)),
        _ => {
            let hours: u64 = random.random_range(0..72);
            OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_709_078_400 + hours * 3_600)
        }
    };
    time.format(&Rfc3339).ok()
}

/// A producer that writes rows itself.
struct Sql {
    world: World,
    random: StdRng,
}

/// What a transaction did to rows, should it commit.
#[derive(Default)]
struct Effects {
    inserted: Vec<(Table, Uuid)>,
    deleted: Vec<(Table, Uuid)>,
}

impl Sql {
    /// Writes until the connection breaks.
    async fn write(&mut self) -> anyhow::Result<()> {
        let connected = tokio::time::timeout(PATIENCE, self.world.database.connect(NoTls)).await;
        let (client, connection) = connected.context("connecting took too long")??;
        tokio::spawn(connection);
        let mut own = Vec::new();
        loop {
            self.transaction(&client, &mut own).await?;
            tokio::time::sleep(Duration::from_millis(self.random.random_range(5..60))).await;
        }
    }

    /// One transaction; `own` are transfers that nobody else changes.
    async fn transaction(
        &mut self,
        client: &tokio_postgres::Client,
        own: &mut Vec<Uuid>,
    ) -> anyhow::Result<()> {
        let history = Arc::clone(&self.world.history);
        let _in_flight = history.begin().await;
        let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][self.random.random_range(0..3)];
        let (mut statements, mut effects) =
            (vec![format!("BEGIN ISOLATION LEVEL {isolation}")], Effects::default());
        for _ in 0..self.random.random_range(1..4) {
            self.change(&mut statements, &mut effects, own);
        }
        if self.random.random_bool(0.2) {
            // Held open across many ticks: the time is spent in the server, inside the transaction.
            statements.push(format!("SELECT pg_sleep({})", self.random.random_range(0.05..1.5)));
        }
        let rolled_back = self.random.random_bool(0.2);
        let Effects { inserted, deleted } = &effects;
        for (table, id) in inserted.iter().chain(deleted) {
            history.note(*table, [*id], Fate::Unknown);
        }
        let end = if rolled_back { "ROLLBACK" } else { "COMMIT" };
        let run = async {
            for statement in &statements {
                client.batch_execute(statement).await?;
            }
            Ok::<_, tokio_postgres::Error>(())
        };
        let written = tokio::time::timeout(PATIENCE, run).await;
        // What failed before its commit was asked for is rolled back, now or when the server notices.
        let (committed, absent) = match written {
            Ok(Ok(())) => {
                let ended = tokio::time::timeout(PATIENCE, client.batch_execute(end)).await;
                match (ended, rolled_back) {
                    (Ok(Ok(())), false) => (true, false),
                    (_, true) => (false, true),
                    // Refused by the server, which then has rolled it back; where it is lost, nobody knows.
                    (Ok(Err(error)), false) => (false, error.code().is_some_and(is_rolled_back)),
                    (Err(_), false) => (false, false),
                }
            }
            _ => (false, true),
        };
        for (table, id) in inserted {
            match (committed, absent) {
                (true, _) => history.note(*table, [*id], Fate::Stored),
                (_, true) => history.note(*table, [*id], Fate::Absent),
                _ => {}
            }
        }
        for (table, id) in deleted {
            match (committed, absent) {
                (true, _) => history.note(*table, [*id], Fate::Absent),
                (_, true) => history.note(*table, [*id], Fate::Stored),
                _ => {}
            }
        }
        if committed {
            own.extend(inserted.iter().filter(|(table, _)| *table == Table::Transfers).map(|(_, id)| *id));
        } else if absent {
            own.extend(deleted.iter().map(|(_, id)| *id));
        }
        history.count(match (committed, absent) {
            (true, _) => Fate::Stored,
            (_, true) => Fate::Absent,
            _ => Fate::Unknown,
        });
        if !committed && !rolled_back {
            tokio::time::timeout(PATIENCE, client.batch_execute("ROLLBACK")).await??;
        }
        Ok(())
    }

    fn change(&mut self, statements: &mut Vec<String>, effects: &mut Effects, own: &mut Vec<Uuid>) {
        let Parents { base_item, user, item } = self.world.parents;
        let back = self.random.random_range(0..5_000);
        let time = match self.random.random_range(0..3) {
            0 => "now()".to_owned(),
            1 => format!("now() - interval '{back} ms'"),
            _ => format!("'2024-02-28Z'::timestamptz + interval '{} minutes'", back % 4_320),
        };
        let undone = self.random.random_bool(0.15);
        if undone {
            statements.push("SAVEPOINT here".to_owned());
        }
        let kind = self.random.random_range(0..10);
        let number = if self.random.random_bool(0.1) { self.random.random_range(2..60) } else { 1 };
        let ids: Vec<Uuid> = (0..number).map(|_| Uuid::now_v7()).collect();
        let list = |row: &dyn Fn(&Uuid) -> String| ids.iter().map(row).collect::<Vec<_>>().join(", ");
        match kind {
            0..4 => {
                let rows = list(&|id| format!("('{id}', '{base_item}', {time})"));
                statements.push(format!("INSERT INTO items VALUES {rows}"));
                effects.insert(undone, Table::Items, &ids);
            }
            4..8 => {
                let rows = list(&|id| format!("('{id}', {time}, '{user}', '{item}')"));
                statements.push(format!("INSERT INTO transfers VALUES {rows}"));
                effects.insert(undone, Table::Transfers, &ids);
            }
            8 => {
                if let Some(id) = own.last() {
                    statements.push(format!("UPDATE transfers SET \"timestamp\" = {time} WHERE id = '{id}'"));
                }
            }
            _ if undone => {}
            _ => {
                if let Some(id) = own.pop() {
                    statements.push(format!("DELETE FROM transfers WHERE id = '{id}'"));
                    effects.deleted.push((Table::Transfers, id));
                }
            }
        }
        if undone {
            statements.push("ROLLBACK TO here".to_owned());
        }
    }
}

impl Effects {
    /// What was undone is not there, whatever becomes of the rest; it needs no mention before it is written.
    fn insert(&mut self, undone: bool, table: Table, ids: &[Uuid]) {
        if !undone {
            self.inserted.extend(ids.iter().map(|id| (table, *id)));
        }
    }
}

/// Whether the server says with this error that the transaction is over and undone, and not that the connection is.
fn is_rolled_back(code: &tokio_postgres::error::SqlState) -> bool {
    // Class 57 is the server going away, 58 and 53 its machine: then the commit may have been done.
    !["57", "58", "53", "08", "XX"].iter().any(|class| code.code().starts_with(class))
}
