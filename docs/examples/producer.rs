//! Sends a base item, a user, an item and a transfer to ingest-api, then many items in one upload.
//!
//! Usage: `cargo run --example producer http://127.0.0.1:8080` (needs the crates anyhow, rand,
//! reqwest, `serde_json`, time, tokio and uuid)

#![expect(clippy::print_stdout, reason = "it prints what it did")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(30);
const GIVE_UP: Duration = Duration::from_secs(300);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

type Answer = (StatusCode, Value);

struct Producer {
    client: Client,
    url: String,
}

impl Producer {
    /// Posts one row, which must have an id. 201: stored; 200: it was stored before.
    async fn create(&self, path: &str, row: Value) -> Result<()> {
        let (status, answer) = self.post(path, "application/json", row.to_string()).await?;
        if !status.is_success() {
            bail!("POST {path} was refused: {status}: {}", answer["detail"]);
        }
        Ok(())
    }

    /// Posts many rows, which must have ids. Returns which lines were rejected, and why.
    async fn upload(&self, path: &str, rows: &[Value]) -> Result<Vec<Value>> {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let (status, answer) = self.post(path, "application/x-ndjson", lines).await?;
        match answer["errors"].as_array() {
            Some(errors) => Ok(errors.clone()),
            None if status.is_success() => Ok(Vec::new()),
            None => bail!("POST {path} was refused: {status}: {answer}"),
        }
    }

    /// Posts a body, and retries while there is no answer, or one that asks for that. The body and
    /// its ids stay the same, so an attempt without an answer may have been carried out.
    async fn post(&self, path: &str, media_type: &str, body: String) -> Result<Answer> {
        let started = Instant::now();
        let mut wait = Duration::from_millis(250);
        loop {
            let request = self.client.post(format!("{}{path}", self.url)).timeout(TIMEOUT);
            let (asked, trouble) =
                match request.header("content-type", media_type).body(body.clone()).send().await {
                    Ok(response) if asks_for_another_attempt(response.status()) => {
                        (retry_after(&response), anyhow::anyhow!("{}", response.status()))
                    }
                    Ok(response) => {
                        let status = response.status();
                        match response.text().await {
                            Ok(text) => match serde_json::from_str(&text) {
                                Ok(answer) => return Ok((status, answer)),
                                // A proxy between this program and ingest-api may answer something
                                // else. If that is a refusal, it is final.
                                Err(_) if !status.is_success() => {
                                    return Ok((status, json!({ "detail": text })));
                                }
                                Err(error) => (None, error.into()),
                            },
                            Err(error) => (None, error.into()),
                        }
                    }
                    Err(error) => (None, error.into()),
                };
            if started.elapsed() > GIVE_UP {
                return Err(trouble.context(format!("POST {path} was not answered")));
            }
            // At least the time in Retry-After, or else a random part of a wait that doubles:
            // producers that lost the service at the same moment must not all return at once.
            let jitter = rand::random_range(0.5..1.0);
            let pause = asked.map_or(wait.mul_f64(jitter), |asked| asked.mul_f64(0.5 + jitter));
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
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
    let producer = Producer { client: Client::new(), url };
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
