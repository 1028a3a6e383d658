//! Pages of history, asked of the upstreams: of every stats-notifier, or of other gateways.

use std::time::Duration;

use actix_web::http::header::HeaderValue;
use bytes::BytesMut;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use service_kit::observe::REQUEST_ID;
use service_kit::settings::comma_separated;
use statistics_stream::history::{NOT_KEPT, Page, Query};
use tokio::sync::Semaphore;

use crate::error::ApiError;
use crate::settings::{HistorySettings, UpstreamSettings};

/// Asks the upstreams for pages of history, one after another until one answers.
#[derive(Debug)]
pub struct History {
    client: Client,
    addresses: Vec<String>,
    /// So many requests at a time; more wait, for as long as a request may take.
    requests: Semaphore,
    timeout: Duration,
    max_page_bytes: usize,
}

/// Why an upstream gave no page.
#[derive(Debug, thiserror::Error)]
enum UpstreamError {
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(#[from] reqwest::Error),
    #[error("the upstream answered {0}")]
    Refused(StatusCode),
    #[error("the upstream's answer is longer than {0} bytes")]
    TooLarge(usize),
    #[error("the upstream's answer cannot be understood: {0}")]
    Data(#[from] serde_json::Error),
}

/// What a problem of the upstream says that is passed on.
#[derive(Debug, Deserialize)]
struct NotKept {
    #[serde(rename = "type")]
    kind: String,
    kept_since: domain::BucketTime,
}

impl History {
    /// Asks where the stream comes from, too.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(upstream: &UpstreamSettings, settings: &HistorySettings) -> Result<Self, reqwest::Error> {
        let connect_timeout = upstream.connect_timeout.get();
        Ok(Self {
            client: Client::builder().connect_timeout(connect_timeout).build()?,
            addresses: comma_separated(&upstream.addresses)
                .map(|address| address.trim_end_matches('/').to_owned())
                .collect(),
            requests: Semaphore::new(settings.concurrent_requests.get()),
            timeout: settings.timeout.get(),
            max_page_bytes: settings.max_page_bytes,
        })
    }

    /// A page, on behalf of the request of this id.
    ///
    /// # Errors
    /// [`ApiError::NotKept`]; or [`ApiError::NoHistory`] where no upstream answers in time.
    pub async fn page(&self, query: Query, request_id: Option<&HeaderValue>) -> Result<Page, ApiError> {
        let share = self.timeout / u32::try_from(self.addresses.len().max(1)).unwrap_or(u32::MAX);
        let asked = async {
            // The semaphore is never closed.
            let _permit = self.requests.acquire().await;
            for address in &self.addresses {
                // One that is frozen accepts connections, but never answers: it must leave time for the others.
                match tokio::time::timeout(share, self.ask(address, query, request_id)).await {
                    Ok(Ok(answer)) => return answer,
                    Ok(Err(error)) => {
                        tracing::warn!(upstream.address = address, error = %error, "no history");
                    }
                    Err(_) => tracing::warn!(upstream.address = address, "no history: no answer in time"),
                }
            }
            Err(ApiError::NoHistory)
        };
        tokio::time::timeout(self.timeout, asked).await.unwrap_or(Err(ApiError::NoHistory))
    }

    async fn ask(
        &self,
        address: &str,
        query: Query,
        request_id: Option<&HeaderValue>,
    ) -> Result<Result<Page, ApiError>, UpstreamError> {
        let mut request = self.client.get(format!("{address}{}", query.path()));
        if let Some(id) = request_id {
            request = request.header(REQUEST_ID.as_str(), id.as_bytes());
        }
        let response = request.send().await?;
        match response.status() {
            StatusCode::OK => Ok(Ok(serde_json::from_slice(&self.read(response).await?)?)),
            StatusCode::GONE => {
                let NotKept { kind, kept_since } = serde_json::from_slice(&self.read(response).await?)?;
                if kind != NOT_KEPT {
                    return Err(UpstreamError::Refused(StatusCode::GONE));
                }
                Ok(Err(ApiError::NotKept { topic: query.topic, kept_since }))
            }
            status => Err(UpstreamError::Refused(status)),
        }
    }

    async fn read(&self, mut response: Response) -> Result<BytesMut, UpstreamError> {
        let mut body = BytesMut::new();
        while let Some(part) = response.chunk().await? {
            body.extend_from_slice(&part);
            if body.len() > self.max_page_bytes {
                return Err(UpstreamError::TooLarge(self.max_page_bytes));
            }
        }
        Ok(body)
    }
}
