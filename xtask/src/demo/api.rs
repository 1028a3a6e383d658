//! ingest-api as a producer should use it: rows have ids of the producer's, so that a request can
//! be repeated until it is answered.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Body, Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::import::UploadResult;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time for the response to one event. An upload has none: it is answered at its end.
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// The backoff between attempts. The maximum also applies to `Retry-After`.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// The lines of an upload that are handed over at once.
const CHUNK_LINES: usize = 1_000;

/// The kinds of trouble to print. The first ones say what is wrong.
const MAX_KINDS: usize = 64;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Stored,
    Refused,
}

/// A client of ingest-api.
#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
    url: String,
    /// The kinds of trouble that were printed already.
    printed: Mutex<BTreeSet<String>>,
}

/// Problem details (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    detail: String,
}

/// Why a request has to be repeated.
struct NoAnswer {
    kind: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

impl Api {
    /// # Errors
    /// Nothing answers at `url`, or not an ingest-api.
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).build()?;
        let url = url.trim_end_matches('/').to_owned();
        let answer = client.get(format!("{url}/users?limit=1")).timeout(EVENT_TIMEOUT).send().await;
        let status = answer
            .with_context(|| {
                format!(
                    "no ingest-api answers at {url}: start one with `cargo xtask up`, or name another one \
                     with --url"
                )
            })?
            .status();
        if !status.is_success() && status != StatusCode::SERVICE_UNAVAILABLE {
            bail!("{url}/users answered {status}: is that an ingest-api?");
        }
        Ok(Self { client, url, printed: Mutex::default() })
    }

    /// Sends one event until it is answered. The event needs an id in its body, or this `key`.
    ///
    /// # Errors
    /// The answer is not ingest-api's.
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
            key.iter()
                .fold(request, |request, key| request.header("idempotency-key", key.to_string()))
        };
        let (status, text) = self.until_answered(request).await?;
        if status.is_success() {
            return Ok(Sent::Stored);
        }
        let Problem { kind, title, detail } = serde_json::from_str(&text)
            .with_context(|| format!("{method} {path} was answered {status}: {text}"))?;
        self.print_once(&kind, &format!("refused: {method} {path}: {status}: {title}: {detail}"));
        Ok(Sent::Refused)
    }

    /// Uploads lines until they are answered. The lines need ids.
    ///
    /// # Errors
    /// The answer is not ingest-api's.
    pub(crate) async fn upload<I>(
        &self,
        path: &str,
        lines: impl Fn() -> I,
    ) -> anyhow::Result<UploadResult>
    where
        I: Iterator<Item = Value> + Send + 'static,
    {
        let request = || {
            let lines = stream::iter(lines().map(|line| format!("{line}\n"))).chunks(CHUNK_LINES);
            let body = Body::wrap_stream(
                lines.map(|lines| Ok::<_, Infallible>(Bytes::from(lines.concat()))),
            );
            let request = self.client.post(format!("{}{path}", self.url));
            request.header(CONTENT_TYPE, "application/x-ndjson").body(body)
        };
        let (status, text) = self.until_answered(request).await?;
        let result: UploadResult = serde_json::from_str(&text)
            .with_context(|| format!("POST {path} was answered {status}: {text}"))?;
        if let Some(bad) = result.errors.first() {
            self.print_once(path, &format!("refused: a line of POST {path}: {}", bad.detail));
        }
        Ok(result)
    }

    /// The first answer that is not 503.
    async fn until_answered(
        &self,
        request: impl Fn() -> RequestBuilder,
    ) -> anyhow::Result<(StatusCode, String)> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(MIN_BACKOFF)
            .with_max_delay(MAX_BACKOFF)
            .with_jitter()
            .without_max_times();
        let answered = (|| answer(request()))
            .retry(backoff)
            .adjust(|error, delay| {
                Some(delay?.max(error.retry_after.unwrap_or_default()).min(MAX_BACKOFF))
            })
            .notify(|error, _| self.print_once(error.kind, &error.message));
        answered.await.map_err(|error| anyhow!(error.message))
    }

    fn print_once(&self, kind: &str, message: &str) {
        let mut printed = self.printed.lock();
        if printed.len() < MAX_KINDS && printed.insert(kind.to_owned()) {
            println!("{message}");
        }
    }
}

async fn answer(request: RequestBuilder) -> Result<(StatusCode, String), NoAnswer> {
    let no_answer = |error: reqwest::Error| NoAnswer {
        kind: "no answer",
        message: format!("ingest-api does not answer: trying again ({error})"),
        retry_after: None,
    };
    let response = request.send().await.map_err(no_answer)?;
    let status = response.status();
    let retry_after =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let text = response.text().await.map_err(no_answer)?;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(NoAnswer {
            kind: "503",
            message: format!("ingest-api answers 503: trying again ({text})"),
            retry_after: retry_after.map(Duration::from_secs),
        });
    }
    Ok((status, text))
}
