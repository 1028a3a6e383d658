//! Producers that use ingest-api.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::history::{Fate, Table, Way};
use crate::writers::{ATTEMPTS, PATIENCE, Parents, World};

/// What a producer writes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
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

/// A producer, of which each write goes to any of all ingest-apis.
pub(super) struct Rest {
    pub(super) world: World,
    pub(super) client: Client,
    pub(super) random: StdRng,
}

/// A request for one row.
struct Asked {
    table: Table,
    id: Uuid,
    method: Method,
    path: String,
    body: Value,
    key: Option<Uuid>,
}

impl Rest {
    /// Leaves the cores to others.
    pub(super) async fn rest(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(5..60))).await;
    }

    /// One write.
    pub(super) async fn write(&mut self, kind: Kind) {
        let history = Arc::clone(&self.world.history);
        let _in_flight = history.begin().await;
        match kind {
            Kind::Single => {
                let table = Table::ALL[self.random.random_range(0..2)];
                let asked = self.row(table);
                self.insert(asked, Way::Single).await;
            }
            Kind::Keyed => {
                let (id, Parents { user, item, .. }) = (Uuid::now_v7(), self.world.parents);
                let asked = Asked {
                    table: Table::Transfers,
                    id,
                    method: Method::PUT,
                    path: format!("/items/{item}/ownership"),
                    body: json!({ "to": user }),
                    key: Some(id),
                };
                self.insert(asked, Way::Keyed).await;
            }
            Kind::Bulk => self.bulk().await,
            Kind::Deleting => {
                let asked = self.row(Table::Items);
                history.note(Table::Items, [asked.id], Fate::Unknown);
                // A repeat that comes after the deletion would create it anew, so there must be none.
                let created = self.send(&asked).await == Some(StatusCode::CREATED);
                if created {
                    history.note(Table::Items, [asked.id], Fate::Stored);
                    self.delete(asked.id).await;
                }
                history.count(if created { Fate::Stored } else { Fate::Unknown });
            }
            Kind::Refused => {
                let mut asked = self.row(Table::Items);
                asked.body = json!({ "id": asked.id, "base_item_id": Uuid::now_v7() });
                self.insert(asked, Way::Refusal).await;
            }
        }
    }

    /// A new row, by POST.
    fn row(&mut self, table: Table) -> Asked {
        let Parents { base_item, user, item } = self.world.parents;
        let (id, time) = (Uuid::now_v7(), time(&mut self.random));
        let text = time.and_then(|time| time.format(&Rfc3339).ok());
        if let Some(time) = time {
            self.world.history.note_time(table, id, time.into());
        }
        let body = match table {
            Table::Items => json!({ "id": id, "base_item_id": base_item, "created_at": text }),
            Table::Transfers => json!({ "id": id, "item_id": item, "owner_id": user, "timestamp": text }),
        };
        Asked { table, id, method: Method::POST, path: format!("/{}", table.name()), body, key: None }
    }

    /// Inserts a row, repeats what may have failed, and now and then what succeeded.
    async fn insert(&mut self, asked: Asked, way: Way) {
        let history = Arc::clone(&self.world.history);
        history.note(asked.table, [asked.id], Fate::Unknown);
        // Some never repeat, and never know.
        let attempts = if self.random.random_bool(0.8) { ATTEMPTS } else { 1 };
        let mut fate = Fate::Unknown;
        for attempt in 0..attempts {
            fate = match self.send(&asked).await {
                Some(status) if status.is_success() => Fate::Stored,
                Some(StatusCode::CONFLICT) => {
                    history.complain(format!("{} was answered 409, but is nobody else's", asked.id));
                    Fate::Unknown
                }
                // An earlier attempt may have been taken, by a service whose clock is another.
                Some(status) if status.is_client_error() && attempt == 0 => Fate::Absent,
                _ => Fate::Unknown,
            };
            if fate != Fate::Unknown {
                break;
            }
            self.rest().await;
        }
        history.note(asked.table, [asked.id], fate);
        history.count(fate);
        if way == Way::Refusal {
            match fate {
                Fate::Stored => history.complain(format!("{} has no base item, but was stored", asked.id)),
                Fate::Absent => history.succeeded([way]),
                Fate::Unknown => {}
            }
            return;
        }
        if fate == Fate::Stored {
            history.succeeded([way]);
            if self.random.random_bool(0.2) {
                self.repeat(&asked).await;
            }
        }
    }

    /// Repeats what was acknowledged, which must change nothing.
    async fn repeat(&mut self, asked: &Asked) {
        match self.send(asked).await {
            Some(status) if status.is_success() && status != StatusCode::CREATED => {
                self.world.history.succeeded([Way::Repeat]);
            }
            Some(status @ (StatusCode::CREATED | StatusCode::CONFLICT)) => {
                let id = asked.id;
                self.world
                    .history
                    .complain(format!("{id} was acknowledged, and its repeat answered {status}"));
            }
            // Of no answer, or of a service whose clock is another, nothing can be said.
            _ => {}
        }
    }

    async fn delete(&mut self, id: Uuid) {
        let history = Arc::clone(&self.world.history);
        let path = format!("/items/{id}");
        let asked =
            Asked { table: Table::Items, id, method: Method::DELETE, path, body: Value::Null, key: None };
        for attempt in 0..ATTEMPTS {
            match self.send(&asked).await {
                // It was acknowledged, and nobody else deletes it: that it is not there will show.
                Some(StatusCode::NOT_FOUND) if attempt == 0 => break,
                Some(StatusCode::NO_CONTENT | StatusCode::NOT_FOUND) => {
                    history.note(Table::Items, [id], Fate::Absent);
                    history.succeeded([Way::Deletion]);
                    break;
                }
                _ => history.note(Table::Items, [id], Fate::Unknown),
            }
        }
    }

    /// An upload, in which some lines may be bad.
    async fn bulk(&mut self) {
        let history = Arc::clone(&self.world.history);
        let table = Table::ALL[self.random.random_range(0..2)];
        let (mut body, mut ids) = (String::new(), Vec::new());
        for _ in 0..self.random.random_range(1..40) {
            let Asked { id, body: mut line, .. } = self.row(table);
            if self.random.random_bool(0.02) {
                let parent = if table == Table::Items { "base_item_id" } else { "owner_id" };
                line[parent] = json!(Uuid::nil());
            }
            ids.push(id);
            // Writing to a string does not fail.
            let _written = writeln!(body, "{line}");
        }
        history.note(table, ids.iter().copied(), Fate::Unknown);
        let attempts = if self.random.random_bool(0.8) { ATTEMPTS } else { 1 };
        for attempt in 0..attempts {
            let url = self.url(&format!("/{}", table.name()));
            let request = self.client.post(url).timeout(PATIENCE);
            let request = request.header("content-type", "application/x-ndjson").body(body.clone());
            if let Some(rejected) = rejected_lines(request).await {
                if rejected.len() < ids.len() {
                    history.succeeded([Way::Upload]);
                }
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

    /// The status of the answer, where there is one. The only failure of its own that a service may know here is that the
    /// database is away.
    async fn send(&mut self, asked: &Asked) -> Option<StatusCode> {
        let url = self.url(&asked.path);
        let mut request = self.client.request(asked.method.clone(), url).timeout(PATIENCE);
        if let Some(key) = asked.key {
            request = request.header("idempotency-key", key.to_string());
        }
        if !asked.body.is_null() {
            request = request.header("content-type", "application/json").body(asked.body.to_string());
        }
        let answer = request.send().await.ok()?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            self.world
                .history
                .complain(format!("{} {} was answered {status}: {text}", asked.method, asked.path));
        }
        Some(status)
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

/// Now, by the clock of ingest-api or of the producer, a moment ago, or in a leap year's February; in microseconds, as
/// Postgres keeps it.
fn time(random: &mut StdRng) -> Option<OffsetDateTime> {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_microsecond(now.microsecond()).unwrap_or(now);
    match random.random_range(0..4) {
        0 => None,
        1 => Some(now),
        2 => Some(now - Duration::from_millis(random.random_range(0..5_000))),
        _ => {
            let hours: u64 = random.random_range(0..72);
            Some(OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_709_078_400 + hours * 3_600))
        }
    }
}
