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

use crate::history::{Fate, Table};
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

impl Rest {
    /// Leaves the cores to others.
    pub(super) async fn rest(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(5..60))).await;
    }

    /// One write.
    pub(super) async fn write(&mut self, kind: Kind) {
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
