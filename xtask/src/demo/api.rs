//! ingest-api, as a producer should use it: with ids of its own, so that whatever was not answered can be sent again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::stream;
use rand::RngExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::import::UploadResult;

/// How long a connection may take, and how long the answer to one event. An upload is answered at its end, however
/// long that takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// The wait after the first request without an answer. It doubles up to the longest, which also bounds what
/// `Retry-After` may ask for.
const SHORTEST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// How many bytes of an upload are handed over at a time.
const PART_BYTES: usize = 65_536;

/// How many words of trouble wait to be shown, and of how many kinds they are. Beyond it they are dropped: the first
/// ones say what is the matter.
const NEWS: usize = 64;

/// Why a request was refused: its problem details (RFC 9457).
#[derive(Debug, Deserialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    detail: String,
}

/// What troubles the producer, each kind of it once.
#[derive(Debug)]
pub(crate) struct News {
    heard: mpsc::Receiver<(String, String)>,
    said: BTreeSet<String>,
}

impl News {
    /// The next words of a kind of trouble that was not spoken of before.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            let heard = self.heard.recv().await?;
            if let Some(text) = self.unsaid(heard) {
                return Some(text);
            }
        }
    }

    /// The words that came already and were not asked for yet.
    pub(crate) fn rest(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Ok(heard) = self.heard.try_recv() {
            rest.extend(self.unsaid(heard));
        }
        rest
    }

    fn unsaid(&mut self, (kind, text): (String, String)) -> Option<String> {
        (self.said.len() < NEWS && self.said.insert(kind)).then_some(text)
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Stored,
    Refused,
}

/// A way to ingest-api.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
    url: String,
    /// What kind of trouble there is, and words for it.
    news: mpsc::Sender<(String, String)>,
}

impl Api {
    /// A way to the ingest-api at `url`, which must answer; and where the news of it will come.
    pub(crate) async fn find(url: String) -> anyhow::Result<(Self, News)> {
        let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).build()?;
        let url = url.trim_end_matches('/').to_owned();
        let (news, heard) = mpsc::channel(NEWS);
        let answer = client.get(format!("{url}/users?limit=1")).timeout(EVENT_TIMEOUT).send().await;
        let answer = answer.with_context(|| {
            format!(
                "no ingest-api answers at {url}: start one with `cargo xtask up`, or name another one with --url"
            )
        })?;
        let status = answer.status();
        if !status.is_success() && status != StatusCode::SERVICE_UNAVAILABLE {
            bail!("{url}/users answered {status}: is that an ingest-api?");
        }
        Ok((Self { client, url, news }, News { heard, said: BTreeSet::new() }))
    }

    /// Sends one event, as often as it takes to be answered. It must have an id in its body, or this `key`.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        key: Option<Uuid>,
        body: &Value,
    ) -> anyhow::Result<Sent> {
        let request = || {
            let request = self.client.request(method.clone(), format!("{}{path}", self.url));
            let request = request.timeout(EVENT_TIMEOUT).header(CONTENT_TYPE, "application/json");
            let request = request.body(body.to_string());
            key.iter().fold(request, |request, key| request.header("idempotency-key", key.to_string()))
        };
        let (status, text) = self.until_answered(request).await;
        if status.is_success() {
            return Ok(Sent::Stored);
        }
        let Problem { kind, title, detail } = serde_json::from_str(&text)
            .with_context(|| format!("{method} {path} was answered {status}: {text}"))?;
        self.tell(kind, format!("refused: {method} {path}: {status}: {title}: {detail}"));
        Ok(Sent::Refused)
    }

    /// Uploads lines, as often as it takes to be answered. They must have ids.
    pub(crate) async fn upload<I>(&self, path: &str, lines: impl Fn() -> I) -> anyhow::Result<UploadResult>
    where
        I: Iterator<Item = String> + Send + 'static,
    {
        let request = || {
            let body = stream::iter(parts(lines()).map(Ok::<_, std::convert::Infallible>));
            self.client
                .post(format!("{}{path}", self.url))
                .header(CONTENT_TYPE, "application/x-ndjson")
                .body(reqwest::Body::wrap_stream(body))
        };
        let (status, text) = self.until_answered(request).await;
        let answer: UploadResult = serde_json::from_str(&text)
            .with_context(|| format!("POST {path} was answered {status}: {text}"))?;
        if let Some(bad) = answer.errors.first() {
            self.tell(path.to_owned(), format!("refused: a line of POST {path}: {}", bad.detail));
        }
        Ok(answer)
    }

    /// The first answer that is not 503.
    async fn until_answered(&self, request: impl Fn() -> RequestBuilder) -> (StatusCode, String) {
        let mut wait = SHORTEST_WAIT;
        loop {
            let asked = match answer(request()).await {
                Ok((StatusCode::SERVICE_UNAVAILABLE, asked, text)) => {
                    self.tell("503".to_owned(), format!("ingest-api answers 503, and is waited for: {text}"));
                    asked
                }
                Ok((status, _, text)) => return (status, text),
                Err(error) => {
                    let text = format!("ingest-api does not answer: trying on ({error})");
                    self.tell("unanswered".to_owned(), text);
                    None
                }
            };
            // A random part of the wait, so that not all who wait come back at the same moment; of what was asked
            // for, none less.
            let jitter = rand::rng().random_range(0.5..1.0);
            let pause = asked.map_or(wait.mul_f64(jitter), |asked| asked.mul_f64(0.5 + jitter));
            tokio::time::sleep(pause.min(LONGEST_WAIT)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn tell(&self, kind: String, text: String) {
        let _enough_was_said = self.news.try_send((kind, text));
    }
}

/// An answer to its end: the status, how long it asks to wait, and the body.
async fn answer(request: RequestBuilder) -> reqwest::Result<(StatusCode, Option<Duration>, String)> {
    let response = request.send().await?;
    let (status, asked) = (response.status(), retry_after(response.headers()));
    Ok((status, asked, response.text().await?))
}

/// How long the answer asks to wait.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// Lines in parts of about [`PART_BYTES`].
fn parts(mut lines: impl Iterator<Item = String>) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let mut part = String::new();
        while part.len() < PART_BYTES {
            let Some(line) = lines.next() else { break };
            part.push_str(&line);
            part.push('\n');
        }
        (!part.is_empty()).then(|| Bytes::from(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_every_line_once_and_are_bounded() {
        let lines: Vec<String> = (0..10_000).map(|number| format!("line {number}")).collect();
        let all: Vec<Bytes> = parts(lines.clone().into_iter()).collect();
        assert!(all.len() > 1 && all.iter().all(|part| part.len() < PART_BYTES + 20));
        let text: String = all.iter().map(|part| std::str::from_utf8(part).unwrap()).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        assert_eq!(parts(std::iter::empty()).count(), 0);
    }
}
