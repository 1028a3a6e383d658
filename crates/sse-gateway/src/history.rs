//! Requests pages of history from the upstreams: stats-notifier replicas, or other gateways.

use std::sync::Arc;
use std::time::Duration;

use access_kit::principal::Principal;
use access_kit::refusal::Refusal;
use access_kit::shares::{Share, Shares};
use actix_web::http::header::HeaderValue;
use bytes::BytesMut;
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use service_kit::address::UpstreamAddress;
use service_kit::client::{self, InternalClient};
use service_kit::failure::one_line;
use service_kit::internal::InternalSecrets;
use service_kit::observe::REQUEST_ID;
use statistics_stream::UpstreamSettings;
use statistics_stream::history::{HistoryPage, HistoryQuery, NOT_KEPT};
use tokio::sync::Semaphore;

use crate::error::RequestError;
use crate::settings::HistoryClientSettings;

/// Requests pages of history from one upstream after another, until one answers.
#[derive(Debug)]
pub struct HistoryClient {
    client: InternalClient,
    addresses: Vec<UpstreamAddress>,
    /// Limits concurrent requests. More wait, and the wait counts towards the timeout.
    permits: Semaphore,
    shares: Arc<Shares>,
    timeout: Duration,
    max_page_bytes: usize,
}

/// Why an upstream gave no page. The next one is tried.
#[derive(Debug, thiserror::Error)]
enum UpstreamError {
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the upstream answered {0}")]
    Refused(StatusCode),
    #[error("the response is longer than {0} bytes")]
    TooLarge(usize),
    #[error("the response is not valid: {0}")]
    Data(#[from] serde_json::Error),
}

impl From<reqwest::Error> for UpstreamError {
    /// The URL is left out: it is logged as the address, without its credentials.
    fn from(error: reqwest::Error) -> Self {
        Self::Unreachable(error.without_url())
    }
}

/// The members of the upstream's problem details that this service passes on.
#[derive(Debug, Deserialize)]
struct NotKept {
    #[serde(rename = "type")]
    kind: String,
    kept_since: domain::BucketTime,
}

impl HistoryClient {
    /// Uses the same upstreams as the stream.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(
        upstream: &UpstreamSettings,
        settings: &HistoryClientSettings,
        secrets: InternalSecrets,
    ) -> Result<Self, reqwest::Error> {
        let builder = client::internal().connect_timeout(upstream.connect_timeout.get());
        Ok(Self {
            client: InternalClient::new(builder, secrets)?,
            addresses: upstream.addresses.clone(),
            permits: Semaphore::new(settings.max_concurrent_requests.get()),
            shares: Shares::of(settings.max_concurrent_requests.get(), "pages of history"),
            timeout: settings.timeout.get(),
            max_page_bytes: settings.max_page_bytes,
        })
    }

    /// A place among the concurrent requests. A key that has its share waits for one of its own.
    ///
    /// # Errors
    /// [`Refusal::Share`] if there is none in time.
    pub async fn share(&self, principal: &Principal) -> Result<Share, Refusal> {
        self.shares.wait(principal, self.timeout).await
    }

    /// Requests a page. `request_id` is passed on, so that the upstream logs it too.
    ///
    /// # Errors
    /// [`RequestError::NotKept`], or [`RequestError::NoHistory`] if no upstream answers in time.
    pub async fn page(
        &self,
        query: HistoryQuery,
        request_id: Option<&HeaderValue>,
    ) -> Result<HistoryPage, RequestError> {
        // A frozen upstream accepts connections but never answers. It must leave time for the
        // others.
        let timeout = self.timeout / u32::try_from(self.addresses.len().max(1)).unwrap_or(u32::MAX);
        let request_in_turn = async {
            // The semaphore is never closed.
            let _permit = self.permits.acquire().await;
            for address in &self.addresses {
                match tokio::time::timeout(timeout, self.request_page(address, query, request_id))
                    .await
                {
                    Ok(Ok(page)) => return page,
                    Ok(Err(error)) => {
                        tracing::warn!(upstream.address = %address, error = %one_line(&error), "no history from this upstream");
                    }
                    Err(_) => {
                        tracing::warn!(
                            upstream.address = %address,
                            "no history from this upstream: timeout"
                        );
                    }
                }
            }
            Err(RequestError::NoHistory)
        };
        tokio::time::timeout(self.timeout, request_in_turn)
            .await
            .unwrap_or(Err(RequestError::NoHistory))
    }

    /// The inner error is final: every upstream would answer the same.
    async fn request_page(
        &self,
        address: &UpstreamAddress,
        query: HistoryQuery,
        request_id: Option<&HeaderValue>,
    ) -> Result<Result<HistoryPage, RequestError>, UpstreamError> {
        let mut request = self.client.request(Method::GET, address, &query.path());
        if let Some(id) = request_id {
            request = request.header(REQUEST_ID.as_str(), id.as_bytes());
        }
        let response = request.send().await?;
        match response.status() {
            StatusCode::OK => Ok(Ok(serde_json::from_slice(&self.read_body(response).await?)?)),
            StatusCode::GONE => {
                let NotKept { kind, kept_since } =
                    serde_json::from_slice(&self.read_body(response).await?)?;
                if kind != NOT_KEPT {
                    return Err(UpstreamError::Refused(StatusCode::GONE));
                }
                Ok(Err(RequestError::NotKept { topic: query.topic, kept_since }))
            }
            status => Err(UpstreamError::Refused(status)),
        }
    }

    async fn read_body(&self, mut response: Response) -> Result<BytesMut, UpstreamError> {
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
