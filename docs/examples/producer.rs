//! Sends a base item, a user, an item and a transfer to ingest-api, then many items in one upload.
//!
//! Usage: `NEWCYCLE_KEY=… cargo run --example producer http://127.0.0.1:8080` (needs the crates
//! anyhow, rand, reqwest, `serde_json`, time, tokio and uuid)

#![expect(clippy::print_stdout, reason = "it prints what it did")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

const GIVE_UP: Duration = Duration::from_secs(300);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

type Answer = (StatusCode, Value);

struct Producer {
    client: Client,
    url: String,
    key: String,
}

impl Producer {
    /// Posts one row, which must have an id. 201: stored; 200: it was stored before.
    async fn create(&self, path: &str, row: Value) -> Result<()> {
        let (status, answer) = self.post(path, "application/json", row.to_string(), "id").await?;
        if !status.is_success() {
            bail!("POST {path} was refused: {status}: {}", answer["detail"]);
        }
        Ok(())
    }

    /// Posts many rows, which must have ids. Returns which lines were rejected, and why.
    async fn upload(&self, path: &str, rows: &[Value]) -> Result<Vec<Value>> {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let (status, answer) = self.post(path, "application/x-ndjson", lines, "accepted").await?;
        match answer["errors"].as_array() {
            _ if status.is_success() => Ok(Vec::new()),
            // A proxy may have errors of its own.
            Some(errors) if status == 422 && answer["accepted"].is_u64() => Ok(errors.clone()),
            _ => bail!("POST {path} was refused: {status}: {}", answer["detail"]),
        }
    }

    /// Posts a body, and retries while there is no answer, or one that asks for that. The body and
    /// its ids stay the same, so an attempt without an answer may have been carried out. A 200 or
    /// 201 counts only if it has the member, which ingest-api sends: a proxy may answer something
    /// else.
    async fn post(
        &self,
        path: &str,
        media_type: &str,
        body: String,
        member: &str,
    ) -> Result<Answer> {
        let give_up = Instant::now() + GIVE_UP;
        let mut wait = Duration::from_millis(250);
        loop {
            let request = self.client.post(format!("{}{path}", self.url));
            let request = request.bearer_auth(&self.key).header("content-type", media_type);
            let request = request.body(body.clone());
            let (asked, trouble) = match attempt(request).await {
                Ok((status, text, asked)) => {
                    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
                    let start: String = text.chars().take(200).collect();
                    if status.is_success() && answer.get(member).is_some() {
                        return Ok((status, answer));
                    }
                    if !status.is_success() && !asks_for_another_attempt(status) {
                        let is_problem = answer.get("detail").is_some();
                        let problem = if is_problem { answer } else { json!({ "detail": start }) };
                        return Ok((status, problem));
                    }
                    (asked, anyhow!("{status}: {start}"))
                }
                Err(error) => (None, error.into()),
            };
            // The time in Retry-After, and a random part of a wait that doubles: producers that
            // lost the service at the same moment must not all return at once.
            let pause = wait.mul_f64(rand::random_range(0.5..1.0));
            let pause = asked.unwrap_or_default().saturating_add(pause);
            if pause > give_up.saturating_duration_since(Instant::now()) {
                return Err(trouble.context(format!("POST {path} was not answered")));
            }
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// Sends a request. Returns the status, the body, and the time in `Retry-After`.
async fn attempt(
    request: RequestBuilder,
) -> reqwest::Result<(StatusCode, String, Option<Duration>)> {
    let response = request.send().await?;
    let (status, asked) = (response.status(), retry_after(&response));
    Ok((status, response.text().await?, asked))
}

fn asks_for_another_attempt(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

fn retry_after(response: &Response) -> Option<Duration> {
    response.headers().get("retry-after")?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("usage: producer http://127.0.0.1:8080")?;
    let timeout = std::env::var("TIMEOUT_SECONDS").unwrap_or_else(|_| "30".to_owned());
    let timeout = Duration::try_from_secs_f64(timeout.parse()?)?;
    // A POST that is redirected would be repeated as a GET, whose 200 says nothing of the row.
    let client = Client::builder().timeout(timeout).redirect(Policy::none()).build()?;
    let key = std::env::var("NEWCYCLE_KEY").context("NEWCYCLE_KEY must be a key")?;
    let producer = Producer { client, url, key };
    let [base_item, user, item, transfer] = std::array::from_fn(|_| Uuid::now_v7());
    let now = OffsetDateTime::now_utc().format(&Rfc3339)?;
    let description = "Touring bicycle, refurbished";
    producer.create("/base-items", json!({ "id": base_item, "description": description })).await?;
    producer.create("/users", json!({ "id": user })).await?;
    let new_item = json!({ "id": item, "base_item_id": base_item, "created_at": now });
    producer.create("/items", new_item).await?;
    let new_transfer = json!({ "id": transfer, "item_id": item, "owner_id": user });
    producer.create("/transfers", new_transfer).await?;
    println!("base item {base_item}\nuser {user}\nitem {item}\ntransfer {transfer}");

    // The second line names a base item that does not exist: it is rejected, the others are stored.
    let bases = [base_item, Uuid::now_v7(), base_item];
    let rows = bases.map(|base| json!({ "id": Uuid::now_v7(), "base_item_id": base }));
    for line in producer.upload("/items", &rows).await? {
        println!("rejected, for a person to look at: line {}: {}", line["line"], line["detail"]);
    }
    Ok(())
}
