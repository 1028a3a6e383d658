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

use crate::history::{ExpectedState, Parents, Table, WriteKind};
use crate::world::{RESPONSE_TIMEOUT, TestWorld};

/// How often a producer sends a write whose outcome it does not know.
const ATTEMPTS: usize = 4;

/// What a producer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProducerKind {
    /// One row per request.
    Single,
    /// Uploads of many rows.
    Bulk,
    /// Requests with the row's id as `Idempotency-Key`.
    Keyed,
    /// Items that are deleted after their creation.
    Deleting,
    /// Events that ingest-api must refuse.
    Refused,
}

/// A producer. Each of its writes goes to a random ingest-api.
pub(super) struct RestProducer {
    pub(super) world: TestWorld,
    pub(super) client: Client,
    pub(super) random: StdRng,
    /// Whether it repeats some acknowledged requests.
    pub(super) repeats: bool,
}

/// A request for one row.
struct RowRequest {
    table: Table,
    id: Uuid,
    method: Method,
    path: String,
    body: Value,
    key: Option<Uuid>,
}

impl RowRequest {
    fn new(table: Table, id: Uuid, method: Method, path: String, body: Value) -> Self {
        Self { table, id, method, path, body, key: None }
    }
}

impl RestProducer {
    /// Waits a little, so that the producers do not use all processor time.
    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(5..60))).await;
    }

    /// Writes once.
    pub(super) async fn write(&mut self, kind: ProducerKind) {
        let history = Arc::clone(&self.world.history);
        let _in_flight = history.begin().await;
        match kind {
            ProducerKind::Single => {
                let table = Table::ALL[self.random.random_range(0..2)];
                let request = self.row(table);
                self.insert(request, WriteKind::Single).await;
            }
            ProducerKind::Keyed => {
                let id = Uuid::now_v7();
                let Parents { user, item, .. } = self.world.parents;
                let path = format!("/items/{item}/ownership");
                let body = json!({ "to": user });
                let request = RowRequest::new(Table::Transfers, id, Method::PUT, path, body);
                self.insert(RowRequest { key: Some(id), ..request }, WriteKind::Keyed).await;
            }
            ProducerKind::Bulk => self.bulk().await,
            ProducerKind::Deleting => {
                let request = self.row(Table::Items);
                history.note(Table::Items, request.id, ExpectedState::Unknown);
                // Sent only once: an attempt that arrives after the deletion would create the item
                // again.
                let created = self.send(&request).await == Some(StatusCode::CREATED);
                if created {
                    history.note(Table::Items, request.id, ExpectedState::Stored);
                    self.delete(request.id).await;
                }
                history.count(if created { ExpectedState::Stored } else { ExpectedState::Unknown });
            }
            ProducerKind::Refused => {
                let mut request = self.row(Table::Items);
                request.body = json!({ "id": request.id, "base_item_id": Uuid::now_v7() });
                self.insert(request, WriteKind::Refusal).await;
            }
        }
    }

    /// A POST of a new row.
    fn row(&mut self, table: Table) -> RowRequest {
        let Parents { base_item, user, item } = self.world.parents;
        let id = Uuid::now_v7();
        let time = time(&mut self.random);
        let text = time.and_then(|time| time.format(&Rfc3339).ok());
        if let Some(time) = time {
            self.world.history.note_time(table, id, time.into());
        }
        let body = match table {
            Table::Items => json!({ "id": id, "base_item_id": base_item, "created_at": text }),
            Table::Transfers => {
                json!({ "id": id, "item_id": item, "owner_id": user, "timestamp": text })
            }
        };
        RowRequest::new(table, id, Method::POST, format!("/{}", table.name()), body)
    }

    /// Inserts a row. Repeats the request if it may have failed, and sometimes if it succeeded.
    async fn insert(&mut self, request: RowRequest, kind: WriteKind) {
        let history = Arc::clone(&self.world.history);
        history.note(request.table, request.id, ExpectedState::Unknown);
        // Some writes are never repeated, so their outcome stays unknown.
        let attempts = if self.random.random_bool(0.8) { ATTEMPTS } else { 1 };
        let mut state = ExpectedState::Unknown;
        for attempt in 0..attempts {
            state = match self.send(&request).await {
                Some(status) if status.is_success() => ExpectedState::Stored,
                Some(StatusCode::CONFLICT) => {
                    history.record_violation(format!(
                        "{} got a 409, but no other producer uses that id",
                        request.id
                    ));
                    ExpectedState::Unknown
                }
                // An earlier attempt may have succeeded at an ingest-api with another clock.
                Some(status) if status.is_client_error() && attempt == 0 => ExpectedState::Absent,
                _ => ExpectedState::Unknown,
            };
            if state != ExpectedState::Unknown {
                break;
            }
            self.pause().await;
        }
        history.note(request.table, request.id, state);
        history.count(state);
        if kind == WriteKind::Refusal {
            match state {
                ExpectedState::Stored => {
                    history.record_violation(format!(
                        "{} has no base item, but was stored",
                        request.id
                    ));
                }
                ExpectedState::Absent => history.succeeded([kind]),
                ExpectedState::Unknown => {}
            }
            return;
        }
        if state == ExpectedState::Stored {
            history.succeeded([kind]);
            if self.random.random_bool(0.2) && self.repeats {
                self.repeat(&request).await;
            }
        }
    }

    /// Repeats an acknowledged request. That must change nothing.
    async fn repeat(&mut self, request: &RowRequest) {
        match self.send(request).await {
            Some(status) if status.is_success() && status != StatusCode::CREATED => {
                self.world.history.succeeded([WriteKind::Repeat]);
            }
            Some(status @ (StatusCode::CREATED | StatusCode::CONFLICT)) => {
                let id = request.id;
                self.world.history.record_violation(format!(
                    "{id} was acknowledged, but its repeat got a {status}"
                ));
            }
            // No response, or a response of an ingest-api with another clock: this proves nothing.
            _ => {}
        }
    }

    async fn delete(&mut self, id: Uuid) {
        let history = Arc::clone(&self.world.history);
        let path = format!("/items/{id}");
        let request = RowRequest::new(Table::Items, id, Method::DELETE, path, Value::Null);
        for attempt in 0..ATTEMPTS {
            match self.send(&request).await {
                // Its creation was acknowledged, and no other producer deletes it. The check of
                // the stored rows will report that it is missing.
                Some(StatusCode::NOT_FOUND) if attempt == 0 => break,
                Some(StatusCode::NO_CONTENT | StatusCode::NOT_FOUND) => {
                    history.note(Table::Items, id, ExpectedState::Absent);
                    history.succeeded([WriteKind::Deletion]);
                    break;
                }
                _ => history.note(Table::Items, id, ExpectedState::Unknown),
            }
        }
    }

    /// Uploads many rows. Some lines may be invalid.
    async fn bulk(&mut self) {
        let history = Arc::clone(&self.world.history);
        let table = Table::ALL[self.random.random_range(0..2)];
        let mut body = String::new();
        let mut ids = Vec::new();
        for _ in 0..self.random.random_range(1..40) {
            let RowRequest { id, body: mut line, .. } = self.row(table);
            if self.random.random_bool(0.02) {
                let parent = if table == Table::Items { "base_item_id" } else { "owner_id" };
                line[parent] = json!(Uuid::nil());
            }
            ids.push(id);
            // Writing to a string cannot fail.
            let _written = writeln!(body, "{line}");
        }
        for id in &ids {
            history.note(table, *id, ExpectedState::Unknown);
        }
        let attempts = if self.random.random_bool(0.8) { ATTEMPTS } else { 1 };
        for attempt in 0..attempts {
            let url = self.url(&format!("/{}", table.name()));
            let request = self.client.post(url).timeout(RESPONSE_TIMEOUT);
            let request = request.header("content-type", "application/x-ndjson").body(body.clone());
            if let Some(rejected) = rejected_lines(request).await {
                if rejected.len() < ids.len() {
                    history.succeeded([WriteKind::Upload]);
                }
                for (line, id) in (1..).zip(ids) {
                    let state = match (rejected.contains(&line), attempt) {
                        (false, _) => ExpectedState::Stored,
                        (true, 0) => ExpectedState::Absent,
                        // An earlier attempt may have succeeded at an ingest-api with another
                        // clock.
                        (true, _) => ExpectedState::Unknown,
                    };
                    history.note(table, id, state);
                }
                history.count(ExpectedState::Stored);
                return;
            }
            self.pause().await;
        }
        history.count(ExpectedState::Unknown);
    }

    /// The URL of a path at a random ingest-api, as behind a load balancer.
    fn url(&mut self, path: &str) -> String {
        let number = self.random.random_range(0..self.world.ingest.len());
        format!("{}{path}", self.world.ingest[number])
    }

    /// Sends a request, and returns the status of the response if there is one. 503 is the only
    /// server error that ingest-api may respond with, because only the database can fail here.
    async fn send(&mut self, request: &RowRequest) -> Option<StatusCode> {
        let url = self.url(&request.path);
        let mut builder =
            self.client.request(request.method.clone(), url).timeout(RESPONSE_TIMEOUT);
        if let Some(key) = request.key {
            builder = builder.header("idempotency-key", key.to_string());
        }
        if !request.body.is_null() {
            builder =
                builder.header("content-type", "application/json").body(request.body.to_string());
        }
        let answer = builder.send().await.ok()?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            self.world.history.record_violation(format!(
                "{} {} got a {status}: {text}",
                request.method, request.path
            ));
        }
        let id = request.id.to_string();
        let answered = serde_json::from_str::<Value>(&text).unwrap_or_default();
        if status.is_success() && answered["id"].as_str().is_some_and(|answered| answered != id) {
            let violation = format!("{id} got the answer to another request: {text}");
            self.world.history.record_violation(violation);
        }
        Some(status)
    }
}

/// The numbers of the lines that the response to an upload rejects. `None` if it is not known
/// whether ingest-api has read all lines.
async fn rejected_lines(upload: reqwest::RequestBuilder) -> Option<Vec<u64>> {
    let answer = upload.send().await.ok()?;
    if !matches!(answer.status(), StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY) {
        return None;
    }
    let summary: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    // The upload has fewer lines than a response can list, so the list is complete.
    let errors = summary["errors"].as_array().into_iter().flatten();
    Some(errors.filter_map(|error| error["line"].as_u64()).collect())
}

/// The time of an event: now by ingest-api's clock (`None`) or by the producer's, a moment ago, or
/// in the February of a leap year. It has microseconds, as Postgres stores it.
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
